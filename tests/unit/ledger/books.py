"""The store's side of the ledger, in memory."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from twisted.internet.defer import Deferred, fail, succeed

from llmproxy.errors import Invalid, StoreUnavailable
from llmproxy.ledger.journal import Journal
from llmproxy.ledger.pending import PendingResult
from llmproxy.ledger.sql import JournalBatch
from llmproxy.model import LedgerLine


class MemoryBooks:
    """Keeps lines as the store does: a part of a journal is entered if all before it was.

    @ivar down: Whether it does not answer; C{deaf}: whether it enters and then does not say so.
    @ivar refused: The journals of which it takes nothing.
    """

    def __init__(self) -> None:
        self.lines: list[LedgerLine] = []
        self.uses: Counter[str] = Counter()
        self.hits: Counter[str] = Counter()
        self.places: dict[str, int] = {}
        self.folds: list[tuple[float, str]] = []
        self.results: list[PendingResult] = []
        self.down = self.deaf = False
        self.refused = set[str]()

    def offset(self, journal: str) -> Deferred[int | None]:
        return fail(StoreUnavailable()) if self.down else succeed(self.places.get(journal))

    def append(self, journal: str, batch: Callable[[], JournalBatch]) -> Deferred[JournalBatch | None]:
        if self.down:
            return fail(StoreUnavailable())
        if journal in self.refused:
            return fail(Invalid("The database cannot store it."))
        part = batch()
        if self.places.get(journal, part.before) != part.before:
            return succeed(None)
        self.places[journal] = part.after
        self.lines += part.all_lines()
        self.results += part.pending
        self.uses.update({token_id: more for token_id, (more, _) in part.uses.items()})
        self.hits.update({token_id: more for token_id, (more, _) in part.hits.items()})
        return fail(StoreUnavailable()) if self.deaf else succeed(part)

    def forget(self, journal: str) -> Deferred[None]:
        self.places.pop(journal, None)
        return succeed(None)

    def pending(self, project_id: str, api: str, result_id: str) -> Deferred[list[PendingResult]]:
        if self.down:
            return fail(StoreUnavailable())
        wanted = (project_id, api, result_id)
        return succeed([each for each in self.results if (each.project_id, each.api, each.result_id) == wanted])

    def collect(self, results: Sequence[PendingResult], line: LedgerLine) -> Deferred[Mapping[str, int] | None]:
        if results[0] not in self.results:
            return succeed(None)
        self.results = [each for each in self.results if each not in results]
        self.lines.append(line)
        return succeed({})

    def rename(self, results: Sequence[PendingResult], result_id: str) -> Deferred[None]:
        self.results = [each._replace(result_id=result_id) if each in results else each for each in self.results]
        return succeed(None)

    def pending_count(self, before: float) -> Deferred[int]:
        return succeed(len(self.results))

    def roll_up(self, lines_before: float, days_before: str, limit: int) -> Deferred[tuple[int, int]]:
        self.folds.append((lines_before, days_before))
        return succeed((limit if len(self.folds) == 1 else 0, 0))


def die(journal: Journal) -> None:
    """As C{kill -9} leaves it: the locks are gone, the files are as they are."""
    for segment in (*journal._segments, *([journal._spare] if journal._spare else ())):
        segment.close()
    os.close(journal._lock)
    journal._lock = -1
    journal._segments, journal._spare = [], None
