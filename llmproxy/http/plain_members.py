"""Reads the members of a usual request that somebody wants to know, without anything else of its body being made.

Usual is: ASCII, each of these members at most once, spelled as it is called, its value a plain one. All of the body is
checked all the same: any other is read as L{request_reader<llmproxy.http.request_reader>} does it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, TypedDict

from msgspec import MsgspecError
from msgspec.json import Decoder

from llmproxy.http.content_measure import measure_short_text
from llmproxy.http.request_reader import NO_CONTENT, RequestContent

MAX_PLAIN_BYTES = 16 * 1024  # of a body that is read so
_PLAIN_NAME = re.compile("[A-Za-z0-9_.-]{1,64}")  # which JSON writes in one way, unless it writes code points
_NONE = NO_CONTENT.repeated  # no names
_new = tuple.__new__  # makes a NamedTuple in a third of the time that a call of its class takes
_Value = str | int | float | bool | None


class PlainMembers:
    """Reads members of these names.

    @ivar read: The members, by name, of a body without a content coding; C{None} where it has to be read in another
        way.
    """

    read: Callable[[bytes], dict[str, Any] | None]

    def __init__(self, names: Iterable[str]) -> None:
        names = frozenset(names)
        self.read = self._read if names and all(map(_PLAIN_NAME.fullmatch, names)) else _nothing
        self._decode = Decoder(TypedDict("Wanted", dict.fromkeys(names, _Value), total=False)).decode  # type: ignore[operator]
        alternatives = "|".join(sorted({re.escape(name.lower()) for name in names}))
        self._names = re.compile(f'"(?:{alternatives})"'.encode())

    def _read(self, body: bytes) -> dict[str, Any] | None:
        if len(body) > MAX_PLAIN_BYTES or b"\\u" in body or not body.isascii():
            return None
        try:
            members: dict[str, Any] = self._decode(body)
        except (MsgspecError, RecursionError):
            return None
        # Each stands there once at least. If that is all, none is there twice, nor in another spelling.
        return members if len(self._names.findall(body.lower())) == len(members) else None


def read_plain(body: bytes, members: PlainMembers, *, measured: bool) -> RequestContent | None:
    """What a usual body says, of which it is certain; C{None} for any other, and where it holds media."""
    found = members.read(body)
    if found is None or body[:1] != b"{":
        return None
    if not measured:
        return _new(RequestContent, ("json", found, True, "", _NONE, _NONE, len(body), NO_CONTENT.text, (), 0))
    short = measure_short_text(body)
    return short and _new(RequestContent, ("json", found, True, "", _NONE, _NONE, len(body), short[0], [], short[1]))


def _nothing(body: bytes) -> None:
    return None
