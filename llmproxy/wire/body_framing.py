"""HTTP/1.1 message bodies over bytes: where each ends (RFC 9112, section 6), and how a chunked one is written.

No sockets, no clock. All readers have C{feed(data)}, which returns the pieces of the body that the bytes hold; C{done};
C{rest}, what came after the body; and C{take}, see L{ChunkedBody.offer}.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from llmproxy.wire.parser import CHUNKED, BadMessage, MessageLimits, bad_message, check_trailer_line

MAX_SIZE_DIGITS = 16  # of a chunk that is not looked at closely
MAX_REMEMBERED_SIZES = 1024
MANY_BYTES = 4096  # of a chunk that is taken for one of many
LAST_CHUNK = b"0\r\n\r\n"

_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;[\t\x20-\x7e\x80-\xff]*)?")
_SIZE, _DATA, _DATA_END, _TRAILER, _DONE = range(5)

TakeChunks = Callable[[bytes], bool]


def chunk(data: bytes) -> bytes:
    """Frame one non-empty piece of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def _chunk_size(line: bytes) -> int:
    """What this line says, or -1 where it says none."""
    match = _CHUNK_LINE.fullmatch(line)
    return -1 if match is None else int(match[1], 16)


class _ChunkSizes(dict[bytes, int]):
    """The same of short lines, remembered, since the sizes of a stream's events repeat; -1 of all others, and of the
    last, of no size."""

    def __missing__(self, line: bytes) -> int:
        if len(line) > MAX_SIZE_DIGITS:
            return -1
        if len(self) >= MAX_REMEMBERED_SIZES:
            self.clear()
        size = self[line] = _chunk_size(line) or -1
        return size


_size_of = _ChunkSizes().__getitem__


class _SizeLines(dict[int, bytes]):
    """The line with which a chunk begins that takes so many bytes with its framing, as L{chunk} writes it; where there
    is no such chunk, a line that is longer."""

    def __missing__(self, framed: int) -> bytes:
        line = bytes(framed + 1)
        for digits in range(1, MAX_SIZE_DIGITS):
            size = framed - digits - 4
            if size > 0 and len(b"%x" % size) == digits:
                line = b"%x\r\n" % size
        if framed < MANY_BYTES:
            self[framed] = line
        return line


size_lines = _SizeLines()


def whole_chunks(data: bytes) -> bytes:
    """The body that comes as these whole chunks, in which there is no CR LF: many events of a stream at once. C{b""}
    where they may be anything else.
    """
    lines = data.rsplit(b"\r\n")  # from the end: CPython searches in half of the time there
    pieces = lines[1::2]
    if lines.pop() or list(map(len, pieces)) != list(map(_size_of, lines[::2])):
        return b""
    return b"".join(pieces)


def joined_chunks(data: bytes) -> bytes:
    """As L{whole_chunks}, for what begins with a size; C{b""} also where it is few large ones."""
    size = _size_of(data[: max(data.find(b"\r\n", 0, 18), 0)])
    return whole_chunks(data) if 0 < size < MANY_BYTES and data.endswith(b"\r\n") else b""


class FixedLengthBody:
    """A body of as many bytes as C{Content-Length} says.

    @ivar done: Whether the body is complete.
    @ivar rest: What came after it, once it is.
    """

    __slots__ = ("_left", "done", "rest")
    take: TakeChunks | None = None
    fault: BadMessage | None = None

    def __init__(self, length: int) -> None:
        self._left = length
        self.done = length == 0
        self.rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Return what of these bytes belongs to the body, as one piece at most."""
        left = self._left - len(data)
        if left > 0:
            self._left = left
            return [data]
        if self.done:
            self.rest += data
            return []
        self._left, self.done = 0, True
        if not left:
            return [data]
        self.rest = data[left:]
        return [data[:left]]


class UntilCloseBody:
    """A body that ends with the connection: whoever reads the connection sees its end."""

    __slots__ = ()
    take: TakeChunks | None = None
    done = False
    rest = b""
    fault: BadMessage | None = None

    def feed(self, data: bytes) -> list[bytes]:
        """Return all."""
        return [data]


class ChunkedBody:
    """Takes a chunked body apart, however its bytes arrive.

    Extensions are dropped; trailer fields are parsed as strictly as a head's, then dropped.

    @ivar done: Whether the body is complete.
    @ivar rest: What came after it, once it is.
    """

    __slots__ = ("_buffer", "_left", "_limits", "_offered", "_state", "_trailer", "done", "rest", "take")

    def __init__(self, limits: MessageLimits) -> None:
        self._limits = limits
        self._state = _SIZE
        self._left = 0
        self._trailer = 0
        self._buffer = b""
        self._offered: TakeChunks | None = None
        self.take: TakeChunks | None = None
        self.done = False
        self.rest = b""

    def offer(self, take: TakeChunks | None) -> None:
        """Have the attribute C{take} ask this first, while what is read next begins with a chunk.

        @param take: Takes a read that is whole chunks as it is, which is then not for L{feed}; or says no, having done
            nothing. C{None}: nobody does any more.
        """
        self._offered = take
        self._set_take()

    def _set_take(self) -> None:
        self.take = self._offered if self._state == _SIZE and not self._buffer else None

    def feed(self, data: bytes) -> list[bytes]:
        """Return the pieces of the body that these bytes hold; L{BadMessage} on any oddity."""
        if self._state == _SIZE and not self._buffer:
            # An event of a stream usually comes as one whole chunk.
            start = data.find(b"\r\n", 0, 18) + 2
            if start > 2 and data[-2:] == b"\r\n":
                size = _size_of(data[: start - 2])
                if size > 0 and len(data) == start + size + 2:
                    return [data[start:-2]]
                if 0 < size < MANY_BYTES:
                    ends = data.endswith(b"\r\n" + LAST_CHUNK)
                    events = whole_chunks(data[: -len(LAST_CHUNK)] if ends else data)
                    if events:
                        self._state, self.done = (_DONE, True) if ends else (_SIZE, False)
                        return [events]
        if self._buffer:
            data, self._buffer = self._buffer + data, b""
        pieces: list[bytes] = []
        at, end = 0, len(data)
        while at < end:
            if self._state == _SIZE and (line := data.find(b"\r\n", at, at + 18)) > 0:
                size = _size_of(data[at:line])
                after = line + 2 + size
                if size > 0 and data[after : after + 2] == b"\r\n":  # a whole one; there may be thousands
                    pieces.append(data[line + 2 : after])
                    at = after + 2
                    continue
            if self._state == _DATA:
                piece = data[at : at + self._left]
                pieces.append(piece)
                at += len(piece)
                self._left -= len(piece)
                if not self._left:
                    self._state = _DATA_END
            elif self._state == _DONE:
                self.rest += data[at:]
                break
            else:
                after = self._line(data, at)
                if not after:
                    self._buffer = data[at:]
                    break
                at = after
        if self._offered is not None:
            self._set_take()
        return pieces

    def _line(self, data: bytes, at: int) -> int:
        """Take one line; return where the next begins, or 0 while it is not whole."""
        longest = self._longest()
        end = data.find(b"\r\n", at, at + longest + 2)
        if end < 0:
            self._check_partial(data, at, longest)
            return 0
        if self._state == _SIZE:
            self._size(data[at:end])
        elif self._state == _DATA_END:
            self._state = _SIZE
        else:
            self._trailer_line(data[at:end])
        return end + 2

    def _longest(self) -> int:
        if self._state == _SIZE:
            return self._limits.chunk_line
        return 0 if self._state == _DATA_END else max(0, self._limits.trailer - self._trailer - 2)

    def _check_partial(self, data: bytes, at: int, longest: int) -> None:
        too_long = len(data) - at >= longest + 2
        if self._state == _DATA_END and data[at : at + 1] != b"\r":
            raise bad_message("The data of a chunk is longer than its size.")
        if data.find(b"\n", at, at + longest + 2) >= 0 or (too_long and self._state != _TRAILER):
            raise bad_message("The chunked body is malformed.")
        if too_long:
            raise BadMessage(431, "request_header_fields_too_large", "The trailer is larger than this proxy accepts.")

    def _size(self, line: bytes) -> None:
        self._left = _chunk_size(line)
        if self._left < 0:
            raise bad_message("The size of a chunk is malformed.")
        self._state = _DATA if self._left else _TRAILER

    def _trailer_line(self, line: bytes) -> None:
        if not line:
            self._state = _DONE
            self.done = True
            return
        self._trailer += len(line) + 2
        check_trailer_line(line, self._limits)


class ChunkedResponseBody(ChunkedBody):
    """A chunked body that yields all that came before a fault, however it came, and only then reports it.

    @ivar fault: What is wrong with what followed.
    """

    __slots__ = ("fault",)

    def __init__(self, limits: MessageLimits) -> None:
        super().__init__(limits)
        self.fault: BadMessage | None = None

    def _line(self, data: bytes, at: int) -> int:
        try:
            return super()._line(data, at)
        except BadMessage as e:
            self.fault = e
            return 0


RequestBodyReader = FixedLengthBody | ChunkedBody
ResponseBodyReader = FixedLengthBody | UntilCloseBody | ChunkedResponseBody


def request_body_reader(length: int, limits: MessageLimits) -> RequestBodyReader:
    """What reads the body after a L{RequestHead} of this C{length}."""
    return ChunkedBody(limits) if length == CHUNKED else FixedLengthBody(length)


def response_body_reader(length: int, limits: MessageLimits) -> ResponseBodyReader:
    """What reads the body after a L{ResponseHead} of this C{length}."""
    if length >= 0:
        return FixedLengthBody(length)
    return ChunkedResponseBody(limits) if length == CHUNKED else UntilCloseBody()
