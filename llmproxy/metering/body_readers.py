"""Reads the usage that a response reports out of its body: a JSON document, or a stream of events."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from pydantic_core import from_json

from llmproxy.metering import estimating
from llmproxy.metering.dialects.registry import RESPONSE_MEMBERS, extract, is_billed_item
from llmproxy.metering.dialects.reported_usage import NO_REPORT, Call, ReportedUsage, merge
from llmproxy.metering.error_events import body_error
from llmproxy.metering.json_scanner import JsonMemberScanner
from llmproxy.metering.sse import EVENT_ENDS, MAX_READ_EVENTS, SAMPLE_BYTES, HeldByteCounter, SseScanner

MAX_BODY_BYTES = 256 << 10  # bytes of a JSON body that are kept and read at once; a longer one is scanned as it passes

MAX_TIGHT_BODY_BYTES = 64 << 10  # likewise where memory is tight
MAX_BODY_CHUNKS = 2048  # of such a body
MAX_MERGED_EVENTS = 500  # events or responses that are read for what they say together: the first of them, and the last
MAX_FIRST_EVENTS = 50  # of these
MAX_USUAL_USAGE_EVENTS = 2  # that report usage in a usual stream
MAX_CALLS = 300  # billed calls that are told apart in one stream

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_MODEL = re.compile(rb'"model(?:Version)?"\s*:\s*"([^"\\]{1,128})"')


class UsageReader(Protocol):
    """What reads a body: takes its bytes, tells what they say of usage, and how much text there is in them."""

    def feed(self, data: bytes) -> object: ...
    @property
    def behind(self) -> bool:
        """Whether some of what came waits to be read by L{work}."""

    def work(self) -> None:
        """Read some more of it: a few milliseconds."""

    def reading(self) -> ReportedUsage:
        """What the body tells. Nothing is counted as held any more."""

    def discard(self) -> None:
        """Forget the body, of which nothing more is asked."""

    def text(self) -> float: ...
    def error(self) -> str:
        """The code of the error that it is or ends in, once it was read; C{""} where there is none."""


class JsonBodyReader:
    """A JSON body: kept while it is short, scanned beyond, and sooner where memory is tight."""

    __slots__ = ("_error", "_held", "_holding", "_kept", "_scan", "_size")

    def __init__(self, holding: HeldByteCounter | None = None) -> None:
        self._error = ""
        self._holding = holding
        self._held = 0  # bytes of it that are counted there
        self._kept: list[bytes] = []
        self._scan: JsonMemberScanner | None = None
        self._size = 0

    def feed(self, data: bytes) -> None:
        self._size += len(data)
        if self._scan is not None:
            self._scan.feed(data)
            self._count_held(self._scan.held_bytes)
        else:
            self._kept.append(data)
            tight = False
            if self._holding is not None:
                self._holding.hold(len(data))
                self._held = self._size
                tight = self._size > MAX_TIGHT_BODY_BYTES and self._holding.tight
            if tight or self._size > MAX_BODY_BYTES or len(self._kept) > MAX_BODY_CHUNKS:
                self._scan_on()

    def _count_held(self, count: int) -> None:
        if self._holding is not None and count != self._held:
            self._holding.hold(count - self._held)
            self._held = count

    def _give_back(self) -> None:
        """What is kept is not counted any more, nor what may still come."""
        self._count_held(0)
        self._holding = None

    def whole(self) -> bytes | None:
        """The body that was kept, which is not counted any more; C{None} where it was scanned as it passed."""
        if self._scan is not None:
            return None
        self._give_back()
        if len(self._kept) != 1:
            self._kept = [b"".join(self._kept)]
        return self._kept[0]

    def discard(self) -> None:
        """Forget the body, since the exchange may be remembered for longer."""
        self._kept = []
        self._give_back()

    def reading(self) -> ReportedUsage:
        self._give_back()
        if self._scan is None:
            whole = b"".join(self._kept).removeprefix(_BYTE_ORDER_MARK)
            said, self._kept = _parse(whole), [whole]
            if isinstance(said, dict | list):
                self._kept = []  # the exchange may be remembered for longer
                self._error = body_error(said if isinstance(said, dict) else _first_and_last(said))
                return extract(said, True) if isinstance(said, dict) else _merge_bounded(said)
            if b"\n{" in whole and (lines := _object_lines(whole)):
                self._kept = []
                return _merge_bounded(lines, _parse)
            self._scan_on()
        return self._scanned()

    @property
    def behind(self) -> bool:
        return self._scan is not None and self._scan.behind

    def work(self) -> None:
        if self._scan is not None:
            self._scan.feed(b"")
            self._count_held(self._scan.held_bytes)

    def text(self) -> float:
        return float(self._size)

    def error(self) -> str:
        return self._error

    def _scan_on(self) -> None:
        self._scan = JsonMemberScanner(RESPONSE_MEMBERS, is_billed_item)
        whole, self._kept = b"".join(self._kept), []
        self._scan.feed(whole)
        self._count_held(self._scan.held_bytes)

    def _scanned(self) -> ReportedUsage:
        """What stands at the top; of several responses, which were made one after the other, what they say together."""
        scan = self._scan
        assert scan is not None
        scan.feed(b"")
        self._give_back()
        self._error = body_error(scan.values)
        said = extract(scan.values, not scan.several)
        if scan.failed or scan.behind or scan.overfull:
            said = said._replace(final=False)  # something else may stand in what was not read
        return said


class EventStreamReader(SseScanner):
    """A stream of events, or of one JSON object a line."""

    __slots__ = ("_calls",)

    def __init__(
        self, mark: bytes, also: bytes, ends: tuple[bytes, ...] = EVENT_ENDS, holding: HeldByteCounter | None = None
    ) -> None:
        super().__init__(mark, also, ends, holding)
        self._calls: frozenset[Call] = frozenset()

    def on_other_event(self, piece: bytes) -> None:
        for data in self.event_data(piece):
            if b'_call"' in data or b"webSearchQueries" in data:
                if len(self._calls) >= MAX_CALLS:
                    self._lost_calls = True
                    return
                self._calls |= extract(_parse(data)).calls

    @property
    def behind(self) -> bool:
        return False

    def work(self) -> None:
        """Of an event that is too long to be kept and too dense to be read as it comes, nothing is read later."""

    @property
    def tells_nothing_else(self) -> bool:
        """Whether nothing is known of it but the text in it, and what those events say that may report usage."""
        return not (self._calls or self._lost_calls or self._suspects or self._part) and self._scan is None

    def usage_data(self) -> bytes | None:
        """The data of those events, a line for each, where L{tells_nothing_else}; C{b""} where there are none, and
        C{None} where there are more than a few, or they are not written as almost all are.
        """
        if self._first is None:
            return b""
        mark, found, pieces = self._mark, list[bytes](), [self._first, *self._kept]
        if self._ends is not EVENT_ENDS:
            return None
        for piece in pieces:
            at = piece.find(mark)
            while at >= 0:
                start, end = piece.rfind(b"\n\n", 0, at), piece.find(b"\n\n", at)
                name, _, line = piece[start + 2 if start >= 0 else 0 : end].rpartition(b"\n")
                if end < 0 or not line.startswith(b"data: ") or len(found) == MAX_USUAL_USAGE_EVENTS:
                    return None
                if name and (b"\n" in name or not name.startswith(b"event:")):
                    return None
                found.append(line[6:])
                at = piece.find(mark, end)
            if b"\r" in piece:
                return None
        if sum(map(len, pieces)) > MAX_READ_EVENTS and sum(map(_count_events, pieces)) > MAX_READ_EVENTS:
            return None  # not all of so many are read
        return b"\n".join(found)

    def model(self) -> str:
        """The model that the beginning of the stream names; C{""} where it names none."""
        return model_in(self.sample)

    def reading(self) -> ReportedUsage:
        self.end()
        self.give_back()
        found = _merge_all(map(_parse, _first_and_last(list(self.usage_events()))))
        if calls := self._calls:
            if any(unit == "web_search_previews" for unit, _ in found.calls):
                calls = frozenset(call for call in calls if call[0] != "web_searches")
            found = found._replace(calls=found.calls | calls)
        if self._lost_calls:
            found = found._replace(final=False)
        if not found.model and (model := self.model()):
            found = found._replace(model=model)
        return found

    def text(self) -> float:
        samples = [self.sample] if self.size <= len(self.sample) else [self.sample, self.last[-SAMPLE_BYTES:]]
        return self.size * estimating.text_share(samples)


def _count_events(piece: bytes) -> int:
    """As many as there are at most, empty ones included."""
    return piece.count(b"\n\n") + 1


def model_in(sample: bytes) -> str:
    """The model that the beginning of a stream names; C{""} where it names none."""
    found = _MODEL.search(sample)
    return "" if found is None else found[1].decode("utf-8", "replace")


def _merge_all(said: Iterable[Any]) -> ReportedUsage:
    """What several events, or the answers of a list, tell together."""
    found = NO_REPORT
    for each in said:
        found = merge(found, extract(each))
    return found


def _merge_bounded(items: Sequence[Any], parse: Callable[[Any], Any] = lambda item: item) -> ReportedUsage:
    """As L{_merge_all}; not final where they are too many to be read."""
    found = _merge_all(map(parse, _first_and_last(items)))
    return found if len(items) <= MAX_MERGED_EVENTS else found._replace(final=False)


def _first_and_last(items: Sequence[Any]) -> Sequence[Any]:
    if len(items) <= MAX_MERGED_EVENTS:
        return items
    return [*items[:MAX_FIRST_EVENTS], *items[MAX_FIRST_EVENTS - MAX_MERGED_EVENTS :]]


def _object_lines(whole: bytes) -> list[bytes]:
    """The lines of what is one object a line under another name; of anything else, such as a part of an array, none."""
    lines = [line for line in whole.splitlines() if line.strip()]
    return lines if lines and isinstance(_parse(lines[0]), dict) else []


def _parse(raw: bytes) -> Any:
    try:
        return from_json(raw)
    except ValueError:
        return None
