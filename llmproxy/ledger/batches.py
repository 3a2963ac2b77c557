"""What of a journal goes into the store with one transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

from llmproxy.ledger import records
from llmproxy.ledger.compact import OPENED, SETTLED, FindKind, decode, settlement, uses_of_opening
from llmproxy.ledger.journal import OrphanedJournal
from llmproxy.ledger.pending import PendingResult, pending_result
from llmproxy.ledger.records import LedgerLineOpening, Settlement
from llmproxy.ledger.sql import CLOSED_OFFSET, JournalBatch
from llmproxy.model import LedgerLine

MAX_BATCH_LINES = 1000
MAX_BATCH_RECORDS = 3 * MAX_BATCH_LINES

Counts = dict[str, tuple[int, float]]
Price = Callable[[LedgerLineOpening], float | None]


def next_batch(
    read: Callable[[int], Iterator[tuple[int, bytes]]], before: int, upto: int, find_kind: FindKind
) -> JournalBatch:
    """The next lines from a place on."""
    lines: list[LedgerLine] = []
    uses: Counts = {}
    hits: Counts = {}
    pending: list[PendingResult] = []
    after = before
    for after, record in islice(read(before), MAX_BATCH_RECORDS):
        form = record[0]
        if form == SETTLED:  # which most lines are
            settled = settlement(record, find_kind)
            if settled is not None:
                line, kind = settled
                lines.append(line)
                if kind.hits:
                    _count(hits, line.token_id, kind.hits, line.at)
        elif form == OPENED:
            token_id, more, at = uses_of_opening(record, find_kind)
            _count(uses, token_id, more, at)
        elif isinstance(found := decode(record, find_kind), Settlement):
            line = found.line
            lines.append(line)
            _count(uses, line.token_id, found.uses, line.at)
            _count(hits, line.token_id, found.hits, line.at)
            if found.deferral is not None:
                pending.append(pending_result(line, found.deferral))
        elif isinstance(found, LedgerLineOpening):
            _count(uses, found.token_id, found.uses, found.at)
        if len(lines) >= MAX_BATCH_LINES or after >= upto:
            break
    if after == before and upto < CLOSED_OFFSET:
        after = upto  # nothing that can be read is left before it
    return JournalBatch(before, after, lines, uses, hits, pending)


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
