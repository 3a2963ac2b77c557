"""The list of allowed endpoints: which paths may be called.

A pattern is a path, compared segment by segment, byte by byte, on the path as it was sent:

- C{/v1/models} is that path only; C{/v1/models/} is another one.
- C{*} stands for one or more characters of one segment: C{/v1/files/*}, C{/v1beta/models/*:generateContent}.
- C{/**} at the end stands for one or more further segments: C{/v1/**}.
- Neither stands for an encoded slash. Where a name may hold one, the pattern says so: C{/model/*%2F*/invoke}.

Note that a bare C{*} takes any verb after a colon too: C{models/*} allows C{models/x:generateContent}.
"""

from __future__ import annotations

from collections.abc import Sequence

from llmproxy.errors import BadTarget
from llmproxy.http import target

_SLASH = b"%2F"


class Endpoints:
    """A compiled allow-list. L{ValueError} says in a sentence which pattern is wrong, and why."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._exact: dict[tuple[bytes, ...], str] = {}
        self._globs: list[_Glob] = []
        for pattern in patterns:
            segments = _segments(pattern)
            if b"*" in pattern.encode():
                self._globs.append(_Glob(pattern, segments))
            else:
                self._exact.setdefault(segments, pattern)

    def match(self, segments: Sequence[bytes]) -> str | None:
        """The pattern that allows a path of these segments (see L{target.parse}), or C{None}; an exact one first."""
        path = tuple(_canonical(segment) for segment in segments)
        found = self._exact.get(path)
        if found is not None:
            return found
        return next((glob.pattern for glob in self._globs if glob.matches(path)), None)


def overlap(one: str, other: str) -> bool:
    """Whether there is a path that both of these patterns allow."""
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

    def __init__(self, pattern: str, segments: tuple[bytes, ...]) -> None:
        self.pattern = pattern
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
