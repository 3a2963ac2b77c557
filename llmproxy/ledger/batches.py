"""What of a journal goes into the store with one transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from operator import itemgetter
from struct import error as StructError
from typing import Any, NamedTuple

from llmproxy.ledger import records
from llmproxy.ledger.compact import (
    OPENED,
    SETTLED,
    SETTLEMENT_BYTES,
    TOKEN,
    FindKind,
    LineKind,
    decode,
    settlement,
    unpack_opened_uses,
    unpack_settlement,
)
from llmproxy.ledger.journal import OrphanedJournal
from llmproxy.ledger.line_rows import (
    ATTRIBUTION_CHARS,
    LINE_COLUMNS,
    MAX_LINE_NUMBER,
    REQUEST_ID_CHARS,
    KindOfDay,
    LineRows,
    attributed_key,
)
from llmproxy.ledger.pending import PendingResult, pending_result
from llmproxy.ledger.records import LedgerLineOpening, Settlement
from llmproxy.ledger.sql import CLOSED_OFFSET, JournalBatch

# What is done once for each batch takes as long as 200 lines; but while one is read, little else can be computed.
MAX_BATCH_LINES = 2000
MAX_BATCH_RECORDS = 3 * MAX_BATCH_LINES

DAY_SECONDS = 86400
_NOTHING = (0, 0.0)
_at = itemgetter(LINE_COLUMNS.index("at"))

Counts = dict[str, tuple[int, float]]
Price = Callable[[LedgerLineOpening], float | None]


def next_batch(
    read: Callable[[int], Iterator[tuple[int, bytes]]], before: int, upto: int, find_kind: FindKind
) -> JournalBatch:
    """The next lines from a place on."""
    uses: Counts = {}
    hits: Counts = {}
    pending: list[PendingResult] = []
    settlements, openings = _Settlements(find_kind, hits), _Openings(find_kind)
    rows, add_settlement, add_opening = settlements.rows.rows, settlements.add, openings.add
    after, unreadable = before, 0
    for after, record in islice(read(before), MAX_BATCH_RECORDS):
        form = record[0]
        if form == SETTLED:  # which most lines are
            add_settlement(record)
        elif form == OPENED:
            add_opening(record)
        elif isinstance(found := decode(record, find_kind), Settlement):
            line = found.line
            try:
                settlements.rows.add(line)
            except Exception:  # which is none as they are written here; it takes none of the others with it
                unreadable += 1
                continue
            _count(uses, line.token_id, found.uses, line.at)
            _count(hits, line.token_id, found.hits, line.at)
            if found.deferral is not None:
                pending.append(pending_result(line, found.deferral))
        elif isinstance(found, LedgerLineOpening):
            _count(uses, found.token_id, found.uses, found.at)
        if len(rows) >= MAX_BATCH_LINES or after >= upto:
            break
    settlements.sum_up()
    openings.count(uses)
    if after == before and upto < CLOSED_OFFSET:
        after = upto  # nothing that can be read is left before it
    return JournalBatch(before, after, (), uses, hits, pending, rows=settlements.rows, unreadable=unreadable)


class _Openings:
    """Short openings: how many uses there are of each kind, and when the last was."""

    def __init__(self, find_kind: FindKind) -> None:
        self._find_kind = find_kind
        self._uses: dict[int, tuple[int, float]] = {}

    def add(self, record: bytes) -> None:
        """Nothing is added where the record cannot be read."""
        try:
            kind_number, at, more = unpack_opened_uses(record)
        except StructError:
            return
        if more:
            known, last = self._uses.get(kind_number, _NOTHING)
            self._uses[kind_number] = (known + more, at if at > last and more > 0 else last)

    def count(self, uses: Counts) -> None:
        """Count them for their tokens."""
        for number, (more, last) in self._uses.items():
            kind = self._find_kind(number)
            if kind is not None:
                _count(uses, kind.common[TOKEN], more, last)


class _Kind(NamedTuple):
    """What is known of short settlements of one kind and day.

    @ivar of_attribution: Those that are attributed to anybody, by that.
    @ivar rows: Those of this kind and day; C{append}: adds one.
    """

    kind: LineKind
    of_day: KindOfDay
    of_attribution: dict[str, list[tuple[Any, ...]]]
    rows: list[tuple[Any, ...]]
    append: Callable[[tuple[Any, ...]], object]
    day: float
    run_id: int
    kind_id: int
    attempts: int


class _Settlements:
    """Short settlements, as the store takes them: nothing is made of each that its kind tells.

    @ivar rows: Those that were added.
    """

    def __init__(self, find_kind: FindKind, hits: Counts) -> None:
        self.rows = LineRows()
        self._find_kind = find_kind
        self._hits = hits
        self._kinds: dict[int, _Kind] = {}
        self._by_kind: list[_Kind] = []
        self._append = self.rows.rows.append

    def add(self, record: bytes) -> None:
        """Nothing is added where the record cannot be read. L{sum_up} must follow."""
        try:
            # fmt: off
            (
                _, kind_number, number, at, duration, bytes_in, bytes_out, given, cached, written, told, reasoning, cost
            ) = unpack_settlement(record)
            # fmt: on
            request_id, attribution = record[SETTLEMENT_BYTES:].decode(), ""
        except (StructError, UnicodeDecodeError):
            return
        if "\0" in request_id:
            request_id, _, attribution = request_id.rpartition("\0")
        known = self._kinds.get(kind_number)
        if (known is None or known[5] != at // DAY_SECONDS) and (known := self._kind(kind_number, at)) is None:
            return
        _, _, of_attribution, _, append, _, run_id, kind_id, attempts = known
        if not request_id.isprintable() or len(request_id) > REQUEST_ID_CHARS or number > MAX_LINE_NUMBER:
            self._add_unusual(record)
            return
        if attribution and (not attribution.isprintable() or len(attribution) > ATTRIBUTION_CHARS):
            self._add_unusual(record)
            return
        # fmt: off
        row = (
            run_id, number, kind_id, at, duration, request_id, given, cached, written, told, reasoning,
            None if cost < 0 else cost, bytes_in, bytes_out, attribution, attempts, "",
        )
        # fmt: on
        self._append(row)
        append(row)
        if attribution:
            of_attribution.setdefault(attribution, []).append(row)

    def sum_up(self) -> None:
        """Add what was added to its sums, and to the hits of its tokens."""
        for kind, of_day, of_attribution, rows, *_ in self._by_kind:
            if rows:
                of_day.add(rows)
                _count(self._hits, kind.common[TOKEN], kind.hits * len(rows), max(map(_at, rows)) if kind.hits else 0.0)
            for attribution, attributed_rows in of_attribution.items():
                key = attributed_key(kind.common, of_day.day * DAY_SECONDS, attribution)
                of_day._replace(total=self.rows.attributed_sum(key)).add(attributed_rows)

    def _kind(self, number: int, at: float) -> _Kind | None:
        kind = self._find_kind(number)
        if kind is None:
            return None
        of_day = self.rows.kind_of_day(kind.common, at)
        rows: list[tuple[Any, ...]] = []
        run_id = self.rows.run_id(kind.run)
        known = _Kind(kind, of_day, {}, rows, rows.append, of_day.day, run_id, of_day.kind_id, of_day.attempts)
        self._kinds[number] = known
        self._by_kind.append(known)
        return known

    def _add_unusual(self, record: bytes) -> None:
        """One that has an odd request id or attribution."""
        settled = settlement(record, self._find_kind)
        if settled is not None:
            line, kind = settled
            self.rows.add(line)
            _count(self._hits, line.token_id, kind.hits, line.at)


def _count(counts: Counts, token_id: str, more: int, at: float) -> None:
    if more and token_id:
        known, last = counts.get(token_id, (0, 0.0))
        counts[token_id] = (known + more, max(last, at if more > 0 else 0.0))


def unsettled_batch(orphan: OrphanedJournal, place: int, price: Price, find_kind: FindKind) -> JournalBatch:
    """What was let go and never settled; with it the journal is closed."""
    left = records.unsettled(decode(record, find_kind) for _, record in orphan.records()).values()
    lines = [each.line(price(each), deferred=deferral is not None) for each, deferral in left]
    pending = [
        pending_result(line, deferral) for line, (_, deferral) in zip(lines, left, strict=True) if deferral is not None
    ]
    return JournalBatch(place, CLOSED_OFFSET, lines, pending=pending)
