"""Server-sent events, of which a few are kept: those that may tell of usage, and what an estimate needs.

An event that passes whole costs one look for a word. Lines may end with LF, CR or CRLF; pieces may end anywhere.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator

from llmproxy.metering.error_events import may_hold_error, stream_error

ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")
LONGEST = 1024 * 1024  # bytes of an event that is kept whole
REST = 64 * 1024  # bytes at the end of a longer one, where its usage stands
SAMPLE = 1024  # bytes of the stream's beginning, and of its end
LAST = 6  # pieces
SUSPECTS = 4  # pieces that may hold an error event: one ends a stream, so the last are enough

_BLANK = re.compile(rb"\r\n\r\n|\n\n|\r\r|\n\r\n|\r\n\n|\n\r")
_LINE = re.compile(rb"\r\n|\n|\r")


class Events:
    """Takes a stream as it passes.

    @ivar size: Bytes that came.
    @ivar sample: The stream's beginning; C{last}: the piece that came last.
    """

    __slots__ = ("_first", "_kept", "_mark", "_part", "_suspects", "last", "sample", "size")

    def __init__(self, mark: bytes) -> None:
        """
        @param mark: What stands in every event that tells of usage, and in few others.
        """
        self._mark = mark
        self._part = bytearray()
        self._first: bytes | None = None
        self._kept: deque[bytes] = deque(maxlen=LAST)
        self._suspects: deque[bytes] = deque(maxlen=SUSPECTS)
        self.size = 0
        self.sample = b""
        self.last = b""

    def feed(self, data: bytes) -> None:
        """The next bytes of the stream."""
        self.size += len(data)
        self.last = data
        if len(self.sample) < SAMPLE:
            self.sample += data[: SAMPLE - len(self.sample)]
        if self._part or not data.endswith(ENDS):
            self._gather(data)
        else:
            self._look(data)

    def end(self) -> None:
        """Nothing more comes; what was left without its end may be an event all the same."""
        part, self._part = bytes(self._part), bytearray()
        self._look(part)

    def error(self) -> str:
        """The code of the error event that the stream ended in; C{""} where there was none."""
        return stream_error(self._suspects)

    def marked(self) -> Iterator[bytes]:
        """The data of the events that may tell of usage: the first of all, and the last ones, in order."""
        for piece in ([] if self._first is None else [self._first]) + list(self._kept):
            for data in datas(piece):
                if self._mark in data:
                    yield data

    def _gather(self, data: bytes) -> None:
        """Put events together that come in pieces; only what is new is looked at."""
        part = self._part
        seen = max(len(part) - 3, 0)
        part += data
        end = max(part.rfind(mark, seen) + len(mark) if part.rfind(mark, seen) >= 0 else 0 for mark in ENDS)
        if end:
            whole = bytes(part[:end])
            del part[:end]
            self._look(whole)
        if len(part) > LONGEST:
            del part[:-REST]

    def _look(self, piece: bytes) -> None:
        """Keep whole events that may tell of usage or of an error."""
        if self._mark in piece:
            self._keep(piece)
        if may_hold_error(piece):
            self._suspects.append(piece)

    def _keep(self, piece: bytes) -> None:
        if self._first is None:
            self._first = piece
        else:
            self._kept.append(piece)


def datas(piece: bytes) -> Iterator[bytes]:
    """The data of each event in C{piece}. What is not a field is taken for the rest of an event that was too long."""
    for event in _BLANK.split(piece):
        lines = [line for line in _LINE.split(event) if line.startswith(b"data")]
        found = [line[5:].removeprefix(b" ") for line in lines if line[4:5] == b":"]
        if found:
            yield b"\n".join(found)
        elif event and not event.startswith((b":", b"event:", b"id:", b"retry:")):
            yield event
