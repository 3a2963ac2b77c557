"""The ledger's tables: lines are entered once, with their sums, and given out as reports."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

from sqlalchemy import (
    Connection,
    String,
    delete,
    insert,
    select,
    update,
)
from zope.interface import implementer

from llmproxy.base.coroutines import deferred
from llmproxy.base.timestamps import utc_day as day
from llmproxy.instruments import Counter, Instrument
from llmproxy.interfaces import IInstrumented
from llmproxy.ledger import pending
from llmproxy.ledger.attributed_usage import AttributedSums
from llmproxy.ledger.pending import PendingResult
from llmproxy.ledger.roll_up import CLOSED_OFFSET, roll_up
from llmproxy.ledger.sum_rows import add_attributed, add_sums, merge, write
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
from llmproxy.store.tables import journals, ledger

BudgetCharges = Callable[[Sequence[str], Sequence[LedgerLine], Mapping[str, Sequence[str]]], Mapping[str, int]]

SHORTEST_TEXT_CHARS = 128  # characters that fit into the shortest of the columns that may hold long text

_ERROR_CHARS = 64
_TEXTS_BUT_IDS = slice(LedgerLine._fields.index("project_id"), LedgerLine._fields.index("error") + 1)

_INTO_LEDGER = f"INSERT INTO {ledger.name} ({', '.join(LedgerLine._fields)})"
_TEXTS = [(LedgerLine._fields.index(c.name), c.type.length or 0) for c in ledger.c if isinstance(c.type, String)]


class JournalBatch(NamedTuple):
    """A part of a journal.

    @ivar before: The place where it begins; C{after}, where it ends.
    @ivar uses: What it adds to the counts of tokens: token id to (how many, time of the last); C{hits} likewise to
        those of responses from the cache.
    @ivar pending: The results that its lines' responses announced.
    @ivar overflow: How often a line's attribution was added up as one of too many, once it is entered.
    """

    before: int
    after: int
    lines: Sequence[LedgerLine]
    uses: Mapping[str, tuple[int, float]] = MappingProxyType({})
    hits: Mapping[str, tuple[int, float]] = MappingProxyType({})
    pending: Sequence[PendingResult] = ()
    overflow: int = 0


@implementer(IInstrumented)
class LedgerTable:
    """The ledger in the store.

    @ivar overflow: How often a claimed attribution was added up as one of too many.
    """

    def __init__(
        self,
        store: Store,
        now: Callable[[], float],
        charges: BudgetCharges = lambda budgets, lines, groups: {},
        *,
        attribution_values: int = 1000,
    ) -> None:
        """
        @param charges: What lines charge to those of the budgets that they are held to, where their projects are in
            these groups.
        @param attribution_values: As L{AttributedSums} has it.
        """
        self.overflow = 0
        self._store = store
        self._now = now
        self._charges = charges
        self._attributed = AttributedSums(attribution_values)

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
        part = await self._store.write(
            partial(
                _append,
                journal=journal,
                batch=batch,
                now=self._now(),
                charges=self._charges,
                attributed=self._attributed,
            )
        )
        if part is not None:
            self.overflow += part.overflow
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
        return await self._store.write(partial(_collect, results=results, line=line, attributed=self._attributed))

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
            connection, [each._replace(model=_storable_text(each.model, SHORTEST_TEXT_CHARS)) for each in part.pending]
        )
        budgets.account(connection, journal, pending.held_by_budget(part.pending), now)
    if part.lines:
        rows, sums = _rows_and_sums(part.lines)
        write(connection, _INTO_LEDGER, len(LedgerLine._fields), rows)
        add_sums(connection, sums)
        added, overflow = attributed.rows(connection, part.lines)
        add_attributed(connection, added)
        part = part._replace(overflow=overflow)
        held = budgets.with_advance(connection, journal)
        groups = {}
        if any(key.startswith("group:") for key in held):
            groups = groups_of_projects(connection, {line.project_id for line in part.lines})
        budgets.account(connection, journal, charges(held, part.lines, groups), now)
    if part.after == CLOSED_OFFSET:
        budgets.close(connection, journal)
    return part


def _collect(
    connection: Connection, *, results: Sequence[PendingResult], line: LedgerLine, attributed: AttributedSums
) -> Mapping[str, int] | None:
    if not pending.remove_results(connection, results):
        return None
    rows, sums = _rows_and_sums([line])
    write(connection, _INTO_LEDGER, len(LedgerLine._fields), rows)
    known = [0] * SUM_COLUMNS.index("unpriced") + [-1] + [0] * (len(SUM_COLUMNS) - SUM_COLUMNS.index("unpriced") - 1)
    priced = [(day(r.at), r.project_id, r.token_id, r.api, r.model, *known) for r in results]
    add_sums(connection, merge([*sums, *priced]))
    add_attributed(connection, attributed.rows(connection, [line], [each.line() for each in results])[0])
    given = pending.corrections(results, line)
    budgets.correct(connection, given)
    return given


def _storable(line: LedgerLine) -> tuple[Any, ...]:
    """As every database takes it: no longer than its column, and without the character that PostgreSQL has not."""
    texts = line.request_id + _long_texts(line)
    if len(texts) <= SHORTEST_TEXT_CHARS and texts.isprintable() and len(line.error) <= _ERROR_CHARS:
        return line
    values: list[Any] = list(line)
    for at, width in _TEXTS:
        values[at] = _storable_text(values[at], width)
    return tuple(values)


def _long_texts(line: LedgerLine) -> str:
    """Its texts that may be long, but for the id of the request."""
    return line.endpoint + line.model + line.answered + line.project_id + line.api + line.error


def _storable_text(text: str, width: int) -> str:
    return text.replace("\0", "").encode("utf-8", "replace").decode()[:width]


class _TextsInCommon(NamedTuple):
    """What is known of lines of one day that have all texts but their ids in common.

    @ivar total: The sum that they are added to, in the order of L{SUM_COLUMNS}.
    @ivar id_chars: Up to how many characters of a printable request id such a line is storable as it is; C{-1}: never.
    @ivar failed: What each adds to that sum; so have C{estimated} and, where it has no price, C{unpriced}.
    """

    total: list[Any]
    id_chars: int
    failed: int
    estimated: int
    unpriced: int


def _rows_and_sums(lines: Sequence[LedgerLine]) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """The lines as every database takes them, and their sums: L{KEY_COLUMNS}, then L{SUM_COLUMNS}."""
    rows: list[tuple[Any, ...]] = []
    sums: dict[tuple[str, ...], list[Any]] = {}
    in_common: dict[tuple[Any, ...], _TextsInCommon] = {}
    for line in lines:
        texts = (line.at // 86400, line[_TEXTS_BUT_IDS])
        known = in_common.get(texts)
        if known is None:
            known = in_common[texts] = _texts_in_common(sums, line)
        total, id_chars, failed, estimated, unpriced = known
        request_id = line.request_id
        rows.append(line if len(request_id) <= id_chars and request_id.isprintable() else _storable(line))
        total[0] += 1
        total[1] += failed
        total[2] += estimated
        total[4] += line.input_tokens
        total[5] += line.cached_tokens
        total[6] += line.cache_write_tokens
        total[7] += line.output_tokens
        total[8] += line.reasoning_tokens
        if (cost := line.cost_usd) is not None:
            total[9] += cost
        else:
            total[3] += unpriced
    # In one order everywhere, so that two processes that add to the same rows never wait for each other.
    return rows, [(*key, *values) for key, values in sorted(sums.items())]


def _texts_in_common(sums: dict[tuple[str, ...], list[Any]], line: LedgerLine) -> _TextsInCommon:
    stored = LedgerLine._make(_storable(line))
    key = (day(stored.at), stored.project_id, stored.token_id, stored.api, stored.answered or stored.model)
    total = sums.get(key)
    if total is None:
        total = sums[key] = [0] * (len(SUM_COLUMNS) - 1) + [0.0]
    texts = _long_texts(line)
    return _TextsInCommon(
        total,
        SHORTEST_TEXT_CHARS - len(texts) if texts.isprintable() and len(line.error) <= _ERROR_CHARS else -1,
        failed=line.outcome == "failed",
        estimated=line.basis == "estimated",
        unpriced=line.basis != "none",  # it used something that costs
    )


__all__ = ["CLOSED_OFFSET", "JournalBatch", "LedgerTable", "Report", "ReportRows", "UsageQuery", "day"]
