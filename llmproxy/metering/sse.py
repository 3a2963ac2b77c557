"""Server-sent events, of which a few are kept: those that may report usage, and what an estimate needs.

An event that passes whole costs one look for a word. Lines may end with LF, CR or CRLF; chunks may end anywhere. Of an
event that is too long to be kept, the members that may be of use are picked out as it passes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain
from typing import Protocol

from pydantic_core import to_json

from llmproxy.metering.dialects.registry import RESPONSE_MEMBERS, is_billed_item
from llmproxy.metering.error_events import may_hold_error, stream_error
from llmproxy.metering.json_scanner import JsonMemberScanner

EVENT_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")
LINE_ENDS = (b"\n",)
MAX_EVENT_BYTES = 1024 * 1024  # bytes of an event that is kept whole
MAX_TIGHT_EVENT_BYTES = 64 * 1024  # likewise where memory is tight
SMALL_BYTES = 1024  # of a part of a stream: fewer are not worth counting
MAX_READ_EVENTS = 1500  # of those that are kept: the last of them
MAX_FIRST_EVENTS = 50  # and so many at the beginning
MAX_LINES = 1000  # of an event that are read as such
SAMPLE_BYTES = 1024  # bytes of the stream's beginning, and of its end
LAST_CHUNKS = 6  # chunks
ERROR_CHUNKS = 4  # chunks that may hold an error event: one ends a stream, so the last are enough

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_BLANK = re.compile(rb"\r\n\r\n|\n\n|\r\r|\n\r\n|\r\n\n|\n\r")
_LINE = re.compile(rb"\r\n|\n|\r")


class HeldByteCounter(Protocol):
    """Counts what is held in memory by everybody together (L{llmproxy.wire.buffers.Buffers} is it).

    @ivar tight: Whether little more should be.
    """

    @property
    def tight(self) -> bool: ...
    def hold(self, count: int) -> object: ...


def tells_text_alone(events: bytes, mark: bytes, also: bytes) -> bool:
    """Whether no event of a whole stream need be read. The parameters are as in L{SseScanner}."""
    find = events.rfind  # see SseScanner.feed
    return events.endswith(EVENT_ENDS) and find(mark) < 0 and find(b"error") < 0 and not (also and find(also) >= 0)


class SseScanner:
    """Takes a stream as it passes.

    @ivar size: Bytes that came.
    @ivar sample: The stream's beginning; C{last}: the end of what came last.
    """

    __slots__ = (
        "_also",
        "_ends",
        "_first",
        "_held",
        "_holding",
        "_kept",
        "_lost_calls",
        "_mark",
        "_part",
        "_scan",
        "_suspects",
        "last",
        "sample",
        "size",
    )

    def __init__(
        self,
        mark: bytes,
        also: bytes = b"",
        ends: tuple[bytes, ...] = EVENT_ENDS,
        holding: HeldByteCounter | None = None,
    ) -> None:
        """
        @param mark: What stands in every event that reports usage, and in few others.
        @param also: What stands in other events that L{on_other_event} wants to see.
        @param ends: What ends an event.
        @param holding: Called with what is kept of it.
        """
        self._mark = mark
        self._also = also
        self._ends = ends
        self._part = bytearray()
        self._scan: JsonMemberScanner | None = None
        self._first: bytes | None = None
        self._kept: list[bytes] = []  # no deques: each of them takes 600 bytes, and most streams fill neither
        self._suspects: list[bytes] = []
        self._holding = holding
        self._held = 0  # bytes of it that are counted there
        self._lost_calls = False  # whether some may have stood in what was not read
        self.size = 0
        self.sample = b""
        self.last = b""

    def feed(self, data: bytes) -> None:
        """The next bytes of the stream."""
        size = len(data)
        if self.size < SAMPLE_BYTES:
            if not self.size:
                data = data.removeprefix(_BYTE_ORDER_MARK)  # HTML Standard, section 9.2.5
            self.sample += data[: SAMPLE_BYTES - self.size]
        self.size += size
        self.last = data if size <= SAMPLE_BYTES else data[-SAMPLE_BYTES:]
        if self._part or not data.endswith(self._ends):
            self._gather(data)
        else:  # What tells nothing costs no call. Where CPython finds nothing, rfind takes two thirds of the time of
            # find, and C{in} some more than that: it takes what it looks for for a number first.
            also = self._also
            if data.rfind(self._mark) >= 0 or data.rfind(b"error") >= 0 or (also and data.rfind(also) >= 0):
                self._pass(data)

    def end(self) -> None:
        """Nothing more comes; what was left without its end may be an event all the same."""
        part, self._part = bytes(self._part), bytearray()
        if self._scan is not None:
            part = self._scanned(part)
        self._pass(part)

    def error(self) -> str:
        """The code of the error event that the stream ended in; C{""} where there was none."""
        if self._ends is EVENT_ENDS:
            return stream_error(self._suspects)
        return stream_error(b"data: " + line for piece in self._suspects for line in self.event_data(piece))

    def on_other_event(self, piece: bytes) -> None:
        """A chunk that C{also} stands in."""

    def usage_events(self) -> Iterator[bytes]:
        """The data of the events that may report usage: the first of all, and the last ones, in order."""
        if self._first is None:
            return
        first = self._events(self._first)
        left, last = MAX_READ_EVENTS, [first]
        for piece in reversed(self._kept):
            last.insert(1, self._events(piece)[-left:])
            left -= len(last[1])
            if left <= 0:
                break
        if len(first) > MAX_FIRST_EVENTS + left:
            last[0] = first[:MAX_FIRST_EVENTS] + first[len(first) - max(left, 0) :]
        for event in chain.from_iterable(last):
            if self._mark in event:
                yield from self._data(event)

    def event_data(self, piece: bytes) -> Iterator[bytes]:
        """The data of each event in C{piece}, or its lines; of very many, of the last."""
        return chain.from_iterable(map(self._data, self._events(piece)[-MAX_READ_EVENTS:]))

    def _events(self, piece: bytes) -> list[bytes]:
        return (_BLANK if self._ends is EVENT_ENDS else _LINE).split(piece)

    def _data(self, event: bytes) -> list[bytes]:
        return _data_of_event(event) if self._ends is EVENT_ENDS else [event] if event else []

    def _pass(self, piece: bytes) -> None:
        """One or more whole events."""
        if self._mark in piece:
            if self._first is None:
                self._first = piece
            else:
                self._kept.append(piece)
                del self._kept[:-LAST_CHUNKS]
        if self._also and self._also in piece:
            self.on_other_event(piece)
        if b"error" in piece and may_hold_error(piece):
            self._suspects.append(piece)
            del self._suspects[:-ERROR_CHUNKS]
        if len(piece) > SMALL_BYTES or self._held:
            self._count_kept()

    def _count_kept(self) -> None:
        """Count what is kept; what is kept twice is one object in most cases, and counts once."""
        if self._holding is None:
            return
        pieces = {id(piece): len(piece) for piece in (*self._kept, *self._suspects)}
        first = 0 if self._first is None else len(self._first)
        scanned = 0 if self._scan is None else self._scan.held_bytes
        self._count_held(sum(pieces.values()) + first + len(self._part) + scanned)

    def _count_held(self, count: int) -> None:
        if self._holding is not None and count != self._held:
            self._holding.hold(count - self._held)
            self._held = count

    def give_back(self) -> None:
        """What is kept is not counted any more, nor what may still come."""
        self._count_held(0)
        self._holding = None

    def discard(self) -> None:
        """Forget what was kept."""
        self._first, self._part = None, bytearray()
        self._kept.clear()
        self._suspects.clear()
        self.give_back()

    def _gather(self, data: bytes) -> None:
        """Put events together that come in chunks; only what is new is looked at."""
        part = self._part
        seen = max(len(part) - 3, 0)
        part += data
        if self._scan is not None:
            end = min((at + len(mark) for mark in self._ends if (at := part.find(mark, seen)) >= 0), default=0)
            if not end:
                self._overflow()
                return
            head = bytes(part[:end])
            del part[:end]
            self._pass(self._scanned(head))
            seen = 0
        end = max(at + len(mark) if (at := part.rfind(mark, seen)) >= 0 else 0 for mark in self._ends)
        if end:
            whole = bytes(part[:end])
            del part[:end]
            self._pass(whole)
        size = len(part)
        if size > MAX_TIGHT_EVENT_BYTES and (
            size > MAX_EVENT_BYTES or (self._holding is not None and self._holding.tight)
        ):
            self._overflow()
        elif size > SMALL_BYTES or self._held:
            self._count_kept()

    def _overflow(self) -> None:
        """The event is too long to be kept."""
        part = self._part
        if self._scan is None:
            self._scan = JsonMemberScanner(RESPONSE_MEMBERS, is_billed_item)
        self._scan.feed(bytes(part[:-3]))
        del part[:-3]
        self._count_kept()

    def _scanned(self, rest: bytes) -> bytes:
        """What was of use in an event that was too long, as a shorter one."""
        scan, self._scan = self._scan, None
        assert scan is not None
        scan.feed(rest)
        unread = scan.failed or scan.behind
        if self._also and (unread or scan.overfull):
            self._lost_calls = True
        if unread:
            return b""  # its last members, which hold, were not read
        event = to_json(scan.values)
        return b"data: " + event + b"\n\n" if self._ends is EVENT_ENDS else event


def event_data(piece: bytes) -> Iterator[bytes]:
    """The data of each event in C{piece}."""
    for event in _BLANK.split(piece):
        yield from _data_of_event(event)


def _data_of_event(event: bytes) -> list[bytes]:
    """Its data, in a list of one; empty where it has none."""
    if not event:
        return []
    lines = [line for line in _LINE.split(event, MAX_LINES) if line.startswith(b"data")]
    found = [line[5:].removeprefix(b" ") for line in lines if line[4:5] == b":"]
    if found:
        return [b"\n".join(found)]
    # Else, but for what is said of an event, a response of another kind than its type says.
    return [] if event.startswith((b":", b"event:", b"id:", b"retry:")) else [event]
