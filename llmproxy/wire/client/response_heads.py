"""Parses the heads of a provider's responses, which are nearly all alike: a memo of what their names mean.

Two heads with the same status line, and fields of the same names in the same order, differ in values only. Of such a
head only what its values may not hold is checked, and how long its body is: by one regular expression.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from llmproxy.http.field_lines import FieldLines, SharedNames
from llmproxy.wire.body_framing import LAST_CHUNK, ChunkedResponseBody, joined_chunks
from llmproxy.wire.parser import CHUNKED, CONTROLS, BadMessage, MessageLimits, ResponseHead, head_lines, response_head

MAX_SHAPES = 96
MAX_ALIKE = 24  # of these that have the same status line and number of lines
MAX_AT_FIRST_SIGHT = 64  # shapes that are made at once; any further one when its head has come twice
MAX_SEEN_ONCE = 1024
MAX_SHAPE_BYTES = 2048  # of all that heads of one shape have in common: its expression takes a microsecond a byte
MAX_LENGTH_DIGITS = 18
_STATUS_LINE = b"HTTP/1."
_VALUE = b"[^%b]*" % re.escape(CONTROLS + b"\r\n")
_starts_with = bytes.startswith
_new = tuple.__new__  # a third of what a call of a NamedTuple costs


@dataclass(slots=True, eq=False)
class ResponseShape:
    """What heads have in common.

    @ivar starts: Each field's name with its colon, as written; C{names}: in lower case.
    @ivar length: The index of C{Content-Length}; C{-1} where the body is chunked.
    @ivar kind: The index of C{Content-Type}; C{-1} where there is not just one.
    @ivar codings: The indexes of C{Content-Encoding}.
    @ivar fixed: Lines that are the same in all of them, by index: those that frame the message otherwise.
    @ivar match: Finds such a head where a response begins, up to its body; its C{groups} are the lines, and C{digits}
        are those of the length: C{0} where the body is chunked.
    """

    starts: list[bytes]
    names: SharedNames
    code: int
    phrase: bytes
    length: int
    kind: int
    codings: tuple[int, ...]
    fixed: tuple[tuple[int, bytes], ...]
    keep_alive: bool
    match: Callable[[bytes], re.Match[bytes] | None]
    groups: tuple[int, ...]
    digits: int


class WholeResponse(NamedTuple):
    """A response that was all in one read, and after which its connection can be used again.

    @ivar values: The field lines; their names are those of the shape.
    @ivar data: All of it, as it came.
    """

    shape: ResponseShape
    values: tuple[bytes, ...]
    body: bytes
    data: bytes

    @property
    def code(self) -> int:
        return self.shape.code

    @property
    def lines(self) -> FieldLines:
        """The field lines, with their names: made anew each time."""
        return FieldLines(self.values, self.shape.names)


def shape_of(lines: FieldLines) -> ResponseShape | None:
    """The shape of the head that these lines are from; C{None} for one that is unlike those before it."""
    names = lines.names
    shape: ResponseShape | None = names.shape if isinstance(names, SharedNames) else None
    return shape


class ResponseHeads:
    """The memo of one provider. The same as L{response_head}, for every head."""

    def __init__(self, limits: MessageLimits, on_keep_alive: Callable[[bytes], object] | None = None) -> None:
        """
        @param on_keep_alive: Called with the value of C{Keep-Alive} where it is in a head unlike those before.
        """
        self._limits = limits
        self._on_keep_alive = on_keep_alive
        self._shapes: dict[tuple[bytes, int], tuple[ResponseShape, ...]] = {}
        self._made = 0
        self._seen_once: set[int] = set()  # by hash
        self._latest: ResponseShape | None = None
        self._begun: re.Match[bytes] | None = None  # the head of a response of which more is to come

    def parse(self, head: bytes, request_method: bytes) -> ResponseHead:
        """As L{response_head}."""
        if request_method == b"HEAD":
            return response_head(head, self._limits, request_method)
        lines = head_lines(head, self._limits)
        status = lines.pop(0)
        for shape in self._shapes.get((status, len(lines)), ()):
            if all(map(_starts_with, lines, shape.starts)) and (length := _length(lines, shape)) is not None:
                fields = FieldLines(lines, shape.names)
                return ResponseHead(shape.code, shape.phrase, 1, fields, length, shape.keep_alive)
        parsed = response_head(head, self._limits, request_method)
        self._remember(status, parsed)
        return parsed

    def whole(self, data: bytes) -> WholeResponse | None:
        """The response that these bytes are, no more and no less, to a request other than HEAD; C{None} where they are
        anything else, or its head is unlike those before."""
        shape = self._latest
        found = None if shape is None else shape.match(data)
        if found is None:
            shape, found = self._shape_of(data)
            self._latest = shape or self._latest
        if shape is None or found is None or not shape.keep_alive:
            return None
        start = found.end()
        if start > self._limits.target:
            return None
        if shape.digits:
            body = data[start:]
            if int(found[shape.digits]) != len(body):
                return None
        else:
            if not data.endswith(LAST_CHUNK) or start == len(data):  # a head may end as the last chunk does
                self._begun = found  # more of it is to come, or it ends in trailer fields
                return None
            body = joined_chunks(data[start : -len(LAST_CHUNK)])
            if not body:
                reader = ChunkedResponseBody(self._limits)
                body = b"".join(reader.feed(data[start:]))
                if not reader.done or reader.rest or reader.fault is not None:
                    return None
        return _new(WholeResponse, (shape, found.group(*shape.groups), body, data))

    def beginning(self, data: bytes) -> tuple[ResponseHead, bytes] | None:
        """The head of a response in chunks with which these bytes begin, and what follows it, where L{whole} has found
        that there is more to come; C{None} where it has not, or the head is unlike those before.
        """
        shape, found, self._begun = self._latest, self._begun, None
        if found is None or found.string is not data:
            found = None if shape is None or shape.digits else shape.match(data)
        if shape is None or found is None or found.end() > self._limits.target:
            return None
        lines = FieldLines(found.group(*shape.groups), shape.names)
        return ResponseHead(shape.code, shape.phrase, 1, lines, CHUNKED, shape.keep_alive), data[found.end() :]

    def _shape_of(self, data: bytes) -> tuple[ResponseShape | None, re.Match[bytes] | None]:
        """The shape that the head has with which this begins, if it has one that is known, and the head."""
        end = data.find(b"\r\n\r\n", 0, self._limits.target)
        if end >= 0:
            status, *lines = data[:end].split(b"\r\n")
            for shape in self._shapes.get((status, len(lines)), ()):
                if (found := shape.match(data)) is not None:
                    return shape, found
        return None, None

    def _remember(self, status: bytes, head: ResponseHead) -> None:
        if (
            head.minor != 1
            or head.code < 200
            or head.code in (204, 304)
            or (head.length < 0 and head.length != CHUNKED)
            or len(head.lines) < 2
            or head.lines.names.count(b"content-length") > 1
        ):
            return
        lines, names = head.lines, head.lines.names
        if self._on_keep_alive is not None and b"keep-alive" in names:
            self._on_keep_alive(lines[names.index(b"keep-alive")].partition(b":")[2])
        fixed = [(i, lines[i]) for i, name in enumerate(names) if name in (b"connection", b"transfer-encoding")]
        starts = [line[: line.index(b":") + 1] for line in lines]
        if self._made >= MAX_AT_FIRST_SIGHT and not self._has_come_before(hash((status, *starts))):
            return  # names that are made up anew each time cost no more than the look
        self._made += 1
        if len(status) + sum(map(len, starts)) + sum(len(line) for _, line in fixed) > MAX_SHAPE_BYTES:
            return
        length = names.index(b"content-length") if head.length != CHUNKED else -1
        groups = [1 + at + (0 <= length < at) for at in range(len(lines))]
        shape = ResponseShape(
            starts,
            SharedNames(names),
            head.code,
            head.phrase,
            length,
            names.index(b"content-type") if names.count(b"content-type") == 1 else -1,
            tuple([i for i, name in enumerate(names) if name == b"content-encoding"]),
            tuple(fixed),
            head.keep_alive,
            _pattern(status, starts, length, dict(fixed)).match,
            tuple(groups),
            groups[length] + 1 if length >= 0 else 0,
        )
        shape.names.shape = shape
        alike = self._shapes.pop((status, len(lines)), ())
        self._shapes[status, len(lines)] = (shape, *alike)[:MAX_ALIKE]
        while sum(map(len, self._shapes.values())) > MAX_SHAPES:
            del self._shapes[next(iter(self._shapes))]  # that to which nothing was added for the longest time

    def _has_come_before(self, kind: int) -> bool:
        """Whether a head of this kind was seen before."""
        if kind in self._seen_once:
            self._seen_once.discard(kind)
            return True
        if len(self._seen_once) >= MAX_SEEN_ONCE:
            self._seen_once.clear()
        self._seen_once.add(kind)
        return False


def _pattern(status: bytes, starts: list[bytes], length: int, fixed: dict[int, bytes]) -> re.Pattern[bytes]:
    """Heads of one shape, up to the body: each line is a group, and the digits of the length are one in theirs."""
    lines = [b"(%b%b)" % (re.escape(start), _VALUE) for start in starts]
    for index, line in fixed.items():
        lines[index] = b"(%b)" % re.escape(line)
    if length >= 0:
        lines[length] = b"(%b[ \t]*([0-9]{1,%d})[ \t]*)" % (re.escape(starts[length]), MAX_LENGTH_DIGITS)
    return re.compile(b"\r\n".join([re.escape(status), *lines, b"\r\n"]))


def match_status_line(data: bytes, matched: int) -> int:
    """How much of the beginning of a status line has come with these bytes, C{matched} of it before them; L{BadMessage}
    at the first byte that is another, lest one waits for the end of a head that will never come."""
    expected = _STATUS_LINE[matched : matched + len(data)]
    if not data.startswith(expected):
        raise BadMessage(400, "bad_request", "The response does not begin with a status line.")
    return matched + len(expected)


def _length(lines: list[bytes], shape: ResponseShape) -> int | None:
    """The length of the body; C{None} where this is not a head of that shape after all."""
    for index, line in shape.fixed:
        if lines[index] != line:
            return None
    return CHUNKED if shape.length < 0 else _content_length(lines[shape.length], shape)


def _content_length(line: bytes, shape: ResponseShape) -> int | None:
    value = line[len(shape.starts[shape.length]) :].strip(b" \t")
    return int(value) if value.isdigit() and len(value) <= MAX_LENGTH_DIGITS else None
