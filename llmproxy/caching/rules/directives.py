"""C{Cache-Control} taken apart (RFC 9111, section 5.2), for requests and for responses."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cached_property
from math import inf
from typing import NamedTuple

MAX_DELTA_SECONDS = 2**31  # seconds; RFC 9111, section 1.2.2, lets any larger number count as this one

_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
# What ends a member of a list, or hides commas in it. A quote that never ends hides all that follows; this way every
# byte is looked at once, whatever a peer sends.
_COMMA_OR_QUOTED = re.compile(rb',|"(?:[^"\\]|\\.)*(?:"|\\?\Z)', re.DOTALL)
_QUOTED = re.compile(rb'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)


class Directives(dict[bytes, list[bytes | None]]):
    """What was said: the directives by their names in lower case, each with every value that it was given.

    C{None} stands for none at all, C{b""} for one that is no value (C{max-age= 60}).
    """

    def seconds(self, name: bytes) -> int | None:
        """How many seconds a directive says; C{None} where it is not there.

        Of several the least counts. What is no number of seconds is 0: a response whose freshness cannot be understood
        is stale (RFC 9111, section 4.2.1).
        """
        given = self.get(name)
        return None if given is None else min(map(_seconds, given))

    @cached_property
    def demands(self) -> Demands:
        """What a request demands of a stored response."""
        oldest, margin = self.seconds(b"max-age"), self.seconds(b"min-fresh")
        return Demands(b"no-cache" in self, inf if oldest is None else oldest, -inf if margin is None else margin)


class Demands(NamedTuple):
    """What a stored response must be for it to be given without a question (RFC 9111, section 5.2.1).

    @ivar validated: The provider must be asked first; it may be C{oldest} seconds old, and must be fresh for C{margin}
        seconds more.
    """

    validated: bool
    oldest: float
    margin: float


NOTHING = Directives()


def parse(values: Iterable[bytes]) -> Directives:
    """The directives in the values of all C{Cache-Control} fields of a message."""
    found = Directives()
    for value in values:
        for member in members([value]):
            name, mark, argument = member.partition(b"=")
            plain = name.rstrip(b" \t").lower()
            if plain != name.lower() or not _NAME.fullmatch(plain):
                argument, mark = b"", b"="  # a blank before "=": whatever was meant, it is not a value
            found.setdefault(plain, []).append(_argument(argument) if mark else None)
    return found


def members(values: Iterable[bytes]) -> list[bytes]:
    """The members of a list-based field, without blanks around them and without empty ones."""
    stripped = (member.strip(b" \t") for value in values for member in _split(value))
    return [member for member in stripped if member]


def _split(value: bytes) -> list[bytes]:
    if b'"' not in value:
        return value.split(b",")
    found, start = [], 0
    for match in _COMMA_OR_QUOTED.finditer(value):
        if match[0] == b",":
            found.append(value[start : match.start()])
            start = match.end()
    return [*found, value[start:]]


def _argument(given: bytes) -> bytes:
    quoted = _QUOTED.fullmatch(given)
    if quoted:
        return _ESCAPED.sub(rb"\1", quoted[1])
    return given if not given or given == given.strip(b" \t") else b""


def _seconds(value: bytes | None) -> int:
    if value is None or not value.isdigit():
        return 0
    return MAX_DELTA_SECONDS if len(value.lstrip(b"0")) > 10 else min(int(value), MAX_DELTA_SECONDS)
