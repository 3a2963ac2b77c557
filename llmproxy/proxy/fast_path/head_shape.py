"""The heads of messages that differ only where fields differ each time: in holes.

Pure. A head that was parsed in full is cut into the lines that stay and the lines with holes; another head that has the
same lines, and values in its holes that the parser would have let pass, means the same.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from llmproxy.http.fields import CLIENT_ADDRESSES

# Fields in which proxies name the client, and agents the conversation, and which are the same for as long.
_LASTING = CLIENT_ADDRESSES | frozenset(
    b"x-forwarded-for session-id session_id thread-id conversation_id x-claude-code-session-id".split()
)
# Fields whose values are made anew for each request, client or conversation, and which nothing here goes by but for
# their own value.
HOLES = _LASTING | frozenset(
    b"content-length traceparent tracestate baggage sentry-trace b3 x-b3-traceid x-b3-spanid x-b3-parentspanid "
    b"x-cloud-trace-context x-amzn-trace-id x-datadog-trace-id x-datadog-parent-id x-datadog-tags uber-trace-id "
    b"newrelic elastic-apm-traceparent x-dynatrace x-instana-t x-instana-s langsmith-trace x-codex-turn-metadata "
    b"idempotency-key x-idempotency-key x-request-id x-client-request-id x-ms-client-request-id x-correlation-id "
    b"amz-sdk-invocation-id x-stainless-retry-count x-request-start x-azure-ref x-amz-cf-id x-vercel-id cf-ray".split()
)
# What the parser lets pass in a value, and not yet all of it: no white space but single spaces, no bytes above 0x7e.
_TEXT = rb"[!-~]+(?: [!-~]+)*"
_VALUE = re.compile(rb":[ \t]?" + _TEXT)
_BARE_VALUE = re.compile(_TEXT)
_LENGTH = re.compile(rb":[ \t]?([0-9]{1,15})")
# Of these, the fields that most often have the same value in requests that are the same otherwise.
SAME_HOLES = _LASTING | {b"content-length", b"x-stainless-retry-count"}
MAX_LENGTH_DIGITS = 15
MAX_VALUE_BYTES = 512  # of a hole that is looked for in what was received


class HeadShape(NamedTuple):
    """Where a head has its holes.

    @ivar size: How many lines it has, the request line included.
    @ivar holes: The index of each line with a hole, and the line's name as it is written.
    @ivar length: Which of the holes is C{Content-Length}.
    """

    size: int
    holes: tuple[tuple[int, bytes], ...]
    length: int

    def fill(self, lines: list[bytes]) -> list[bytes] | None:
        """The lines with holes of a head; C{None} where it has another shape, or its holes must be read more closely.

        The lines that stay are for the caller to compare, by their L{key}.
        """
        if len(lines) != self.size:
            return None
        filled = []
        for index, name in self.holes:
            line = lines[index]
            if not line.startswith(name) or not _VALUE.fullmatch(line, len(name)):
                return None
            filled.append(line)
        return filled

    def key(self, lines: Sequence[bytes]) -> bytes:
        """All of a head of this shape, with the empty line at its end, but what stands in its holes."""
        kept = [*lines, b"", b""]
        for index, name in self.holes:
            kept[index] = _start(kept[index], name)
        return b"\r\n".join(kept)

    def body_length(self, filled: Sequence[bytes]) -> int:
        """What C{Content-Length} says; C{-1} where it says nothing that is clear."""
        found = _LENGTH.fullmatch(filled[self.length], len(self.holes[self.length][1]))
        return -1 if found is None else int(found[1])


def _start(line: bytes, name: bytes) -> bytes:
    """What stands before the value of a line with a hole."""
    end = len(name) + 1
    return line[: end + (line[end : end + 1] in (b" ", b"\t"))]


class HeadLayout(NamedTuple):
    """Where a head that differs only in its holes has them: heads of one client with other tokens often have the same.

    @ivar name: The name of the first field with a hole; C{name_at}: where it stands.
    @ivar start: How many bytes stand before the first hole; C{pieces}: behind each hole, from the end of its line on.
    """

    name: bytes
    name_at: int
    start: int
    pieces: tuple[int, ...]

    def key_in(self, data: bytes) -> bytes:
        """What stands in what was received, but for the holes: what the head is found by that has this layout."""
        at = self.start
        parts = [data[:at]]
        for size in self.pieces:
            end = data.find(b"\r", at, at + MAX_VALUE_BYTES)
            if end < 0:
                return b""
            at = end + size
            parts.append(data[end:at])
        return b"".join(parts)


class HeadText:
    """A head as one text with holes: what most clients send next is known by it without being taken apart.

    @ivar start: What stands before the first hole.
    @ivar layout: How it is laid out.
    """

    __slots__ = ("_after_start", "_length", "_pieces", "_starts", "layout", "start")

    def __init__(self, lines: Sequence[bytes], shape: HeadShape) -> None:
        """
        @param lines: The request line and the field lines, of this shape.
        """
        starts, pieces, at = [], [], 0
        for index, name in shape.holes:
            start = _start(lines[index], name)
            starts.append(start)
            pieces.append(b"\r\n".join([*lines[at:index], start]))
            at = index + 1
        rest = b"\r\n".join([*lines[at:], b"", b""])
        self._length = shape.length
        self._starts = tuple(starts)
        self.start = pieces[0]
        self._after_start = len(self.start)
        self._pieces = tuple((b"\r\n" + piece, len(piece) + 2) for piece in (*pieces[1:], rest))
        sizes = tuple([size for _, size in self._pieces])
        self.layout = HeadLayout(starts[0], len(self.start) - len(starts[0]), len(self.start), sizes)

    def match(self, data: bytes) -> tuple[list[bytes], int, int] | None:
        """The values that stand in its holes in what was received, the length of the body, and where that begins there.

        C{None} where the head is not all there, is another, or has to be read more closely.

        @param data: It begins with L{start}.
        """
        at, pieces = self._after_start, self._pieces
        if len(pieces) == 1:  # one hole, which is the length
            piece, size = pieces[0]
            end = data.find(b"\r", at, at + MAX_LENGTH_DIGITS + 1)
            length = data[at:end]
            if end < 0 or not length.isdigit() or not data.startswith(piece, end):
                return None
            return [length], int(length), end + size
        values = []
        for piece, size in pieces:
            end = data.find(b"\r", at, at + MAX_VALUE_BYTES)
            if end < 0 or not data.startswith(piece, end):
                return None
            values.append(data[at:end])
            at = end + size
        length = values[self._length]
        if not length.isdigit() or len(length) > MAX_LENGTH_DIGITS or not all(map(_BARE_VALUE.fullmatch, values)):
            return None
        return values, int(length), at

    def with_body(self, holes: Sequence[bytes] | None, body: bytes) -> bytes:
        """All of a request with this body.

        @param holes: The lines with holes, of such a head; C{None}: the length is the only hole.
        """
        if holes is None:
            return b"%b%d%b%b" % (self.start, len(body), self._pieces[0][0], body)
        parts = [self.start]
        for start, line, (piece, _) in zip(self._starts, holes, self._pieces, strict=True):
            parts += (line[len(start) :], piece)
        return b"".join((*parts, body))

    def lines(self, values: Sequence[bytes]) -> list[bytes]:
        """The field lines with holes, with these values in them."""
        return [start + value for start, value in zip(self._starts, values, strict=True)]


def head_shape(lines: Sequence[bytes], holes_in: frozenset[bytes] = HOLES) -> HeadShape | None:
    """The shape of a request's head.

    @param lines: The request line and the field lines.
    @param holes_in: Names of the fields that have holes, in lower case.
    @return: C{None} where it has no C{Content-Length}, or a field with a hole more than once.
    """
    holes: list[tuple[int, bytes]] = []
    length, seen = -1, set()
    for index, line in enumerate(lines):
        name, colon, _ = line.partition(b":")
        lower = name.lower()
        if lower in holes_in and colon and index:
            if lower in seen:
                return None
            seen.add(lower)
            if lower == b"content-length":
                length = len(holes)
            holes.append((index, name))
    return None if length < 0 else HeadShape(len(lines), tuple(holes), length)
