"""The ledger's tables: lines are entered once, with their sums, and given out as reports."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

from sqlalchemy import Connection, delete, insert, select, update
from zope.interface import implementer

from llmproxy.base.budgets import ChargedUse
from llmproxy.base.coroutines import deferred
from llmproxy.base.memo import BoundedMemo
from llmproxy.base.timestamps import utc_day as day
from llmproxy.instruments import Counter, Instrument
from llmproxy.interfaces import IInstrumented
from llmproxy.ledger import pending
from llmproxy.ledger.attributed_usage import AttributedSums
from llmproxy.ledger.line_rows import LineRows, storable_text
from llmproxy.ledger.pending import PendingResult
from llmproxy.ledger.roll_up import CLOSED_OFFSET, roll_up
from llmproxy.ledger.sum_rows import add_attributed, add_sums, merge
from llmproxy.ledger.usage_pages import report_page
from llmproxy.ledger.usage_queries import (
    SUM_COLUMNS,
    Report,
    ReportRows,
    UsageQuery,
    ordered_sums,
)
from llmproxy.model import LedgerLine
from llmproxy.store import budgets, tokens
from llmproxy.store.group_tree import groups_of_projects
from llmproxy.store.store import Store
from llmproxy.store.tables import journals

BudgetCharges = Callable[[Sequence[str], Sequence[ChargedUse], Mapping[str, Sequence[str]]], Mapping[str, int]]

MAX_NOTED = 50_000  # kinds and runs of lines that are known to be in the store
MODEL_CHARS = 128


class JournalBatch(NamedTuple):
    """A part of a journal.

    @ivar before: The place where it begins; C{after}, where it ends.
    @ivar uses: What it adds to the counts of tokens: token id to (how many, time of the last); C{hits} likewise to
        those of responses from the cache.
    @ivar pending: The results that its lines' responses announced.
    @ivar overflow: How often a line's attribution was added up as one of too many, once it is entered.
    @ivar rows: Further lines, as the store takes them; C{unreadable}: how many there are that it does not take.
    """

    before: int
    after: int
    lines: Sequence[LedgerLine]
    uses: Mapping[str, tuple[int, float]] = MappingProxyType({})
    hits: Mapping[str, tuple[int, float]] = MappingProxyType({})
    pending: Sequence[PendingResult] = ()
    overflow: int = 0
    rows: LineRows | None = None
    unreadable: int = 0

    @property
    def line_count(self) -> int:
        """How many lines there are."""
        return len(self.lines) + (0 if self.rows is None else len(self.rows))

    def all_lines(self) -> list[LedgerLine]:
        """All lines, whatever form they have here."""
        return [*(() if self.rows is None else self.rows.lines()), *self.lines]


@implementer(IInstrumented)
class LedgerTable:
    """The ledger in the store.

    @ivar overflow: How often a claimed attribution was added up as one of too many.
    """

    def __init__(
        self,
        store: Store,
        now: Callable[[], float],
        charges: BudgetCharges = lambda budgets, uses, groups: {},
        *,
        attribution_values: int = 1000,
    ) -> None:
        """
        @param charges: What is charged to those of the budgets that hold for these uses, where their projects are in
            these groups.
        @param attribution_values: As L{AttributedSums} has it.
        """
        self.overflow = 0
        self._store = store
        self._now = now
        self._charges = charges
        self._attributed = AttributedSums(attribution_values)
        self._used: BoundedMemo[int, int] = BoundedMemo(MAX_NOTED)

    def instruments(self) -> Iterator[Instrument]:
        yield Counter(
            "attribution_overflow", "Claimed attributions that were added up as (other).", lambda: self.overflow
        )

    @deferred
    async def offset(self, journal: str) -> int | None:
        """How far this journal has been entered; C{None} where nothing of it has."""
        return await self._store.read(lambda connection: _offset(connection, journal))

    @deferred
    async def append(self, journal: str, batch: Callable[[], JournalBatch]) -> JournalBatch | None:
        """Enter a part of a journal, which is read in the store's thread; fire with it.

        Fire with C{None}, and enter nothing, where the journal has not been entered exactly up to where it begins.
        """
        now = self._now()
        part = await self._store.write(
            partial(
                _append,
                journal=journal,
                batch=batch,
                now=now,
                charges=self._charges,
                attributed=self._attributed,
                used=self._used,
            )
        )
        if part is None:
            self._used.clear()  # who knows what else has changed
            return None
        self.overflow += part.overflow
        if part.rows is not None:
            used_on = part.rows.used_on(now)
            for noted in (*part.rows.kinds, *part.rows.runs):
                self._used[noted] = used_on
        return part

    @deferred
    async def forget(self, journal: str) -> None:
        """The journal is gone, and nobody will ask for its place."""
        await self._store.write(lambda c: c.execute(delete(journals).where(journals.c.name == journal)))

    @deferred
    async def pending(self, project_id: str, api: str, result_id: str) -> list[PendingResult]:
        """The results of that id that nobody has collected, oldest first."""
        return await self._store.read(
            partial(pending.find_results, project_id=project_id, api=api, result_id=result_id)
        )

    @deferred
    async def collect(self, results: Sequence[PendingResult], line: LedgerLine) -> Mapping[str, int] | None:
        """Enter what they used, as this line has it, and correct the budgets that were held for them: all or nothing.

        Fire with how much less than was held each budget was charged; with C{None} where another has done it.
        """
        return await self._store.write(
            partial(_collect, results=results, line=line, attributed=self._attributed, now=self._now())
        )

    @deferred
    async def rename(self, results: Sequence[PendingResult], result_id: str) -> None:
        """Another object reports what they used."""
        await self._store.write(partial(pending.rename_results, results=results, result_id=result_id))

    @deferred
    async def pending_count(self, before: float) -> int:
        """Forget the results from before that time; fire with how many are left."""
        await self._store.write(partial(pending.purge_results, before=before))
        return await self._store.read(pending.count_results)

    @deferred
    async def report(self, question: UsageQuery) -> Report:
        """Sums of what was used."""
        return await self._store.report(partial(report_page, question=question))

    def export(self, question: UsageQuery) -> ReportRows:
        """The same as a whole, whatever part is asked for; L{errors.StoreUnavailable} where many are under way."""
        return ReportRows(self._store.export(), ordered_sums(question))

    @deferred
    async def roll_up(self, lines_before: float, days_before: str, limit: int) -> tuple[int, int]:
        """Remove at most so many lines from before this time, and fold the days before this one into their months.

        Fire with how many lines were removed, and how many sums were folded.
        """
        return await self._store.write(
            partial(roll_up, lines_before=lines_before, days_before=days_before, limit=limit, now=self._now())
        )


def _offset(connection: Connection, journal: str) -> int | None:
    found = connection.scalar(select(journals.c.place).where(journals.c.name == journal))
    return None if found is None else int(found)


def _append(
    connection: Connection,
    *,
    journal: str,
    batch: Callable[[], JournalBatch],
    now: float,
    charges: BudgetCharges,
    attributed: AttributedSums,
    used: Mapping[int, int],
) -> JournalBatch | None:
    """The journal's place moves first: whoever else enters the same part waits for this, and then finds it moved."""
    part = batch()
    moved = connection.execute(
        update(journals)
        .where(journals.c.name == journal, journals.c.place == part.before)
        .values(place=part.after, updated_at=now)
    )
    if not moved.rowcount:
        if _offset(connection, journal) is not None:
            return None
        connection.execute(insert(journals).values(name=journal, place=part.after, updated_at=now))
    tokens.add_uses(connection, part.uses)
    tokens.add_cache_hits(connection, part.hits)
    if part.pending:
        pending.insert_results(
            connection, [each._replace(model=storable_text(each.model, MODEL_CHARS)) for each in part.pending]
        )
        budgets.account(connection, journal, pending.held_by_budget(part.pending), now)
    if part.line_count:
        rows = (LineRows() if part.rows is None else part.rows).with_lines(part.lines)
        rows.insert(connection, now, used)
        add_sums(connection, rows.sums())
        added, overflow = attributed.rows(connection, rows.attributed)
        add_attributed(connection, added)
        part = part._replace(overflow=overflow)
        if held := budgets.with_advance(connection, journal):
            _account(connection, journal, charges, held, rows.uses(), now)
    if part.after == CLOSED_OFFSET:
        budgets.close(connection, journal)
    return part


def _account(
    connection: Connection,
    journal: str,
    charges: BudgetCharges,
    held: Sequence[str],
    uses: Sequence[ChargedUse],
    now: float,
) -> None:
    """Charge lines, by what they used, to the budgets that their process has something of."""
    groups: Mapping[str, Sequence[str]] = {}
    if any(key.startswith("group:") for key in held):
        groups = groups_of_projects(connection, {use.project_id for use in uses})
    budgets.account(connection, journal, charges(held, uses, groups), now)


def _collect(
    connection: Connection,
    *,
    results: Sequence[PendingResult],
    line: LedgerLine,
    attributed: AttributedSums,
    now: float,
) -> Mapping[str, int] | None:
    if not pending.remove_results(connection, results):
        return None
    rows = LineRows().with_lines([line])
    rows.insert(connection, now, {})
    known = [0] * SUM_COLUMNS.index("unpriced") + [-1] + [0] * (len(SUM_COLUMNS) - SUM_COLUMNS.index("unpriced") - 1)
    priced = [(day(r.at), r.project_id, r.token_id, r.api, r.model, *known) for r in results]
    add_sums(connection, merge([*rows.sums(), *priced]))
    add_attributed(connection, attributed.rows(connection, rows.attributed, [each.line() for each in results])[0])
    given = pending.corrections(results, line)
    budgets.correct(connection, given)
    return given


__all__ = ["CLOSED_OFFSET", "JournalBatch", "LedgerTable", "Report", "ReportRows", "UsageQuery", "day"]
