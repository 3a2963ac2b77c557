"""The list of allowed endpoints: which paths may be called.

A pattern is a path, compared segment by segment, byte by byte, on the path as it was sent:

- C{/v1/models} is that path only; C{/v1/models/} is another one.
- C{*} stands for one or more characters of one segment: C{/v1/files/*}, C{/v1beta/models/*:generateContent}.
- C{/**} at the end stands for one or more further segments: C{/v1/**}.
- C{GET /v1/models} is that path with that method only; with C{GET} goes C{HEAD} (RFC 9110, section 9.3.2).
- Neither star stands for an encoded slash. Where a name may hold one, the pattern says so: C{/model/*%2F*/invoke}.

Note that a bare C{*} takes any verb after a colon too: C{models/*} allows C{models/x:generateContent}.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from llmproxy.errors import BadTarget
from llmproxy.http import target

_SLASH = b"%2F"
_METHOD = re.compile(r"([A-Z][A-Z-]*) (?=/)")


class EndpointPattern(NamedTuple):
    """A pattern as it is written, and the methods that it is for; C{None} for all."""

    pattern: str
    methods: frozenset[bytes] | None

    def allows(self, method: bytes | None) -> bool:
        """Whether it is for this method; C{None} asks for the path alone."""
        return self.methods is None or method is None or method in self.methods


class Endpoints:
    """A compiled allow-list. L{ValueError} says in a sentence which pattern is wrong, and why."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._exact: dict[tuple[bytes, ...], list[EndpointPattern]] = {}
        self._globs: list[tuple[_Glob, EndpointPattern]] = []
        for pattern in patterns:
            method, path = split_method(pattern)
            entry, segments = EndpointPattern(pattern, _methods(method)), _segments(path)
            if b"*" in path.encode():
                self._globs.append((_Glob(segments), entry))
            else:
                self._exact.setdefault(segments, []).append(entry)

    def match(self, segments: Sequence[bytes], method: bytes | None = None) -> str | None:
        """The pattern that allows a path of these segments (see L{target.parse}), or C{None}; an exact one first."""
        return next((entry.pattern for entry in self._entries(segments) if entry.allows(method)), None)

    def methods(self, segments: Sequence[bytes]) -> frozenset[bytes]:
        """The methods that patterns name for the path of these segments."""
        return frozenset[bytes]().union(*(entry.methods or () for entry in self._entries(segments)))

    def _entries(self, segments: Sequence[bytes]) -> Iterator[EndpointPattern]:
        path = tuple(_canonical(segment) for segment in segments)
        yield from self._exact.get(path, ())
        yield from (entry for glob, entry in self._globs if glob.matches(path))


def split_method(pattern: str) -> tuple[str, str]:
    """The method that a pattern names, C{""} for any, and its path."""
    named = _METHOD.match(pattern)
    return (named[1], pattern[named.end() :]) if named else ("", pattern)


def _methods(method: str) -> frozenset[bytes] | None:
    if not method:
        return None
    return frozenset((b"GET", b"HEAD") if method == "GET" else (method.encode("ascii"),))


def overlap(one: str, other: str) -> bool:
    """Whether there is a request that both of these patterns allow."""
    (method, one), (another, other) = split_method(one), split_method(other)
    if method and another and not (_methods(method) or frozenset()) & (_methods(another) or frozenset()):
        return False
    first, second = _segments(one), _segments(other)
    deep, further = first[-1] == b"**", second[-1] == b"**"
    length, others = len(first) - deep, len(second) - further
    fits = length == others if deep == further else (length < others if deep else others < length)
    return (fits or (deep and further)) and all(map(_segments_overlap, first[: min(length, others)], second))


def _segments_overlap(one: bytes, other: bytes) -> bool:
    """Whether there is a segment that both allow; a star stands for one byte or more."""
    if b"*" not in one and b"*" not in other:
        return one == other
    rows, columns = _steps(one), _steps(other)
    reached = {(0, 0)}
    waiting = [(0, 0)]
    while waiting:
        row, column = waiting.pop()
        if (row, column) == (len(rows), len(columns)):
            return True
        for place in _next(rows, columns, row, column):
            if place not in reached:
                reached.add(place)
                waiting.append(place)
    return False


def _steps(segment: bytes) -> list[tuple[int, bool]]:
    """Each byte, C{-1} for any, with whether it may repeat."""
    return [(-1, True) if byte == 0x2A else (byte, False) for byte in segment]


def _next(
    rows: list[tuple[int, bool]], columns: list[tuple[int, bool]], row: int, column: int
) -> list[tuple[int, int]]:
    """Where one more byte of both leads."""
    if row == len(rows) or column == len(columns):
        return []
    (one, more), (other, others) = rows[row], columns[column]
    if one != other and -1 not in (one, other):
        return []
    further = [(row + 1, column + 1)]
    if more:
        further.append((row, column + 1))
    if others:
        further.append((row + 1, column))
    return further


class _Glob:
    """One pattern that holds a C{*}."""

    def __init__(self, segments: tuple[bytes, ...]) -> None:
        self._deep = segments[-1] == b"**"
        self._segments = [segment.split(b"*") for segment in (segments[:-1] if self._deep else segments)]

    def matches(self, path: tuple[bytes, ...]) -> bool:
        depth = len(self._segments)
        further = path[depth:]
        if self._deep:
            if not further or not further[0] or any(_SLASH in segment for segment in further):
                return False
        elif further:
            return False
        return len(path) >= depth and all(map(_matches, self._segments, path))


def _matches(parts: list[bytes], segment: bytes) -> bool:
    """Whether C{segment} is these literal parts with at least one character between each two.

    Each part is looked for at the first place where it may stand, so this never goes back: no pattern, however
    made, takes more than one pass.
    """
    if len(parts) == 1:
        return parts[0] == segment
    first, *middle, last = parts
    if not segment.startswith(first) or not segment.endswith(last):
        return False
    if segment.count(_SLASH) != sum(part.count(_SLASH) for part in parts):
        return False  # a star would stand for an encoded slash
    position = len(first) + 1
    for part in middle:
        found = segment.find(part, position)
        if found < 0:
            return False
        position = found + len(part) + 1
    return position <= len(segment) - len(last)


def _canonical(segment: bytes) -> bytes:
    return segment.replace(b"%2f", _SLASH) if b"%2f" in segment else segment


def _segments(pattern: str) -> tuple[bytes, ...]:
    try:
        _, query, segments = target.parse(pattern.encode())
    except BadTarget as e:
        raise ValueError(f'"{pattern}" is not an endpoint (try /v1/chat/completions): {e}') from e
    if query is not None:
        raise ValueError(f'"{pattern}" is not an endpoint: a pattern is a path and has no query')
    if any(b"**" in segment for segment in segments[:-1]) or (b"**" in segments[-1] and segments[-1] != b"**"):
        raise ValueError(f'"{pattern}" is not an endpoint: ** may only be the whole last segment')
    return tuple(_canonical(segment) for segment in segments)
