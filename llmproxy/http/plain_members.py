"""Reads the members of a usual request that somebody wants to know, without anything else of its body being made.

Usual is: ASCII, each of these members at most once, spelled as it is called, its value a plain one. All of the body is
checked all the same: any other is read as L{request_reader<llmproxy.http.request_reader>} does it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, TypedDict

from msgspec import MsgspecError
from msgspec.json import Decoder

from llmproxy.http.content_measure import MEDIA_NAMES, measure_bare_text, measure_short_text
from llmproxy.http.request_reader import NO_CONTENT, RequestContent

MAX_PLAIN_BYTES = 16 * 1024  # of a body that is read so
_PLAIN_NAME = re.compile("[A-Za-z0-9_.-]{1,64}")  # which JSON writes in one way, unless it writes code points
_NONE = NO_CONTENT.repeated  # no names
_new = tuple.__new__  # makes a NamedTuple in a third of the time that a call of its class takes
_Value = str | int | float | bool | None


class PlainMembers:
    """Reads members of these names."""

    def __init__(self, names: Iterable[str]) -> None:
        names = frozenset(names)
        self._reads = bool(names) and all(map(_PLAIN_NAME.fullmatch, names))
        self._decode = Decoder(TypedDict("Wanted", dict.fromkeys(names, _Value), total=False)).decode  # type: ignore[operator]
        self._wanted = frozenset(name.lower().encode() for name in names)
        self._find_names = re.compile(b'"(%b)"' % _pattern(self._wanted | MEDIA_NAMES)).findall

    def read(self, body: bytes) -> dict[str, Any] | None:
        """The members, by name, of a body without a content coding; C{None} where it has to be read in another way."""
        found = self.find(body)
        return None if found is None else found[0]

    def find(self, body: bytes) -> tuple[dict[str, Any], bool] | None:
        """As L{read}, with whether there is no escape in it, nor any of the L{MEDIA_NAMES}."""
        escape = body.find(b"\\")  # C{in} takes three times as long: CPython tries a number first
        if not self._reads or len(body) > MAX_PLAIN_BYTES or not body.isascii():
            return None
        if escape >= 0 and body.find(b"\\u", escape) >= 0:
            return None
        try:
            members: dict[str, Any] = self._decode(body)
        except (MsgspecError, RecursionError):
            return None
        # Each stands there once at least. If that is all, none is there twice, nor in another spelling.
        names = self._find_names(body.lower())
        if len(names) == len(members) and MEDIA_NAMES.isdisjoint(names):
            return members, escape < 0
        return (members, False) if sum(map(self._wanted.__contains__, names)) == len(members) else None


def read_plain(body: bytes, members: PlainMembers, *, measured: bool) -> RequestContent | None:
    """What a usual body says, of which it is certain; C{None} for any other, and where it holds media."""
    found = members.find(body)
    if found is None or body[:1] != b"{":
        return None
    values, is_bare = found
    if not measured:
        return _new(RequestContent, ("json", values, True, "", _NONE, _NONE, len(body), NO_CONTENT.text, (), 0))
    short = measure_bare_text(body) if is_bare else measure_short_text(body)
    return short and _new(RequestContent, ("json", values, True, "", _NONE, _NONE, len(body), short[0], [], short[1]))


def _pattern(names: Iterable[bytes]) -> bytes:
    """Matches one of these names. What several begin with is written once, which takes a third of the time less."""
    rests: dict[bytes, list[bytes]] = {}
    for name in sorted(names):
        rests.setdefault(name[:1], []).append(name[1:])
    ends = rests.pop(b"", None) is not None
    alternatives = b"|".join([re.escape(first) + _pattern(rest) for first, rest in rests.items()])
    if not alternatives:
        return b""
    return b"(?:%b)%b" % (alternatives, b"?" if ends else b"")
