"""The ledger's tables: lines are entered once, with their sums, and given out as reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache, partial
from itertools import chain
from types import MappingProxyType
from typing import Any, NamedTuple

from sqlalchemy import (
    Connection,
    String,
    Table,
    bindparam,
    delete,
    exists,
    func,
    insert,
    select,
    update,
)

from llmproxy.base.coroutines import deferred
from llmproxy.ledger import pending
from llmproxy.ledger.pending import PendingResult
from llmproxy.ledger.usage_queries import (
    KEY_COLUMNS,
    PROJECT_KEY_COLUMNS,
    SUM_COLUMNS,
    Report,
    ReportRows,
    UsageQuery,
    ordered_sums,
    report_page,
)
from llmproxy.model import LedgerLine
from llmproxy.store import budgets, tokens
from llmproxy.store.store import Store
from llmproxy.store.tables import journals, ledger, project_usage, usage

CLOSED_OFFSET = 2**62  # the place behind everything that a journal can hold

BudgetCharges = Callable[[Sequence[str], Sequence[LedgerLine]], Mapping[str, int]]

ROWS_PER_STATEMENT = (250, 50, 10, 1)  # rows; SQLite takes 32,766 values with one statement
SHORTEST_TEXT_CHARS = 128  # characters that fit into the shortest of the columns that may hold long text

_ERROR_CHARS = 64
_TEXTS_BUT_IDS = slice(LedgerLine._fields.index("project_id"), LedgerLine._fields.index("error") + 1)

_INTO_LEDGER = f"INSERT INTO {ledger.name} ({', '.join(LedgerLine._fields)})"
_INTO_USAGE = f"INSERT INTO {usage.name} ({', '.join((*KEY_COLUMNS, *SUM_COLUMNS))})"
_INTO_PROJECT_USAGE = f"INSERT INTO {project_usage.name} ({', '.join((*PROJECT_KEY_COLUMNS, *SUM_COLUMNS))})"
_TOKEN = KEY_COLUMNS.index("token_id")
_TEXTS = [(LedgerLine._fields.index(c.name), c.type.length or 0) for c in ledger.c if isinstance(c.type, String)]


class JournalBatch(NamedTuple):
    """A part of a journal.

    @ivar before: The place where it begins; C{after}, where it ends.
    @ivar uses: What it adds to the counts of tokens: token id to (how many, time of the last); C{hits} likewise to
        those of answers from the cache.
    @ivar pending: The results that its lines' answers announced.
    """

    before: int
    after: int
    lines: Sequence[LedgerLine]
    uses: Mapping[str, tuple[int, float]] = MappingProxyType({})
    hits: Mapping[str, tuple[int, float]] = MappingProxyType({})
    pending: Sequence[PendingResult] = ()


class LedgerTable:
    """The ledger in the store."""

    def __init__(
        self, store: Store, now: Callable[[], float], charges: BudgetCharges = lambda budgets, lines: {}
    ) -> None:
        """
        @param charges: What lines charge to those of the budgets that they are held to.
        """
        self._store = store
        self._now = now
        self._charges = charges

    @deferred
    async def offset(self, journal: str) -> int | None:
        """How far this journal has been entered; C{None} where nothing of it has."""
        return await self._store.read(lambda connection: _offset(connection, journal))

    @deferred
    async def append(self, journal: str, batch: Callable[[], JournalBatch]) -> JournalBatch | None:
        """Enter a part of a journal, which is read in the store's thread; fire with it.

        Fire with C{None}, and enter nothing, where the journal has not been entered exactly up to where it begins.
        """
        return await self._store.write(
            partial(_append, journal=journal, batch=batch, now=self._now(), charges=self._charges)
        )

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
        return await self._store.write(partial(_collect, results=results, line=line))

    @deferred
    async def rename(self, results: Sequence[PendingResult], result_id: str) -> None:
        """Another object tells what they used."""
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
            partial(_roll_up, lines_before=lines_before, days_before=days_before, limit=limit, now=self._now())
        )


def _offset(connection: Connection, journal: str) -> int | None:
    found = connection.scalar(select(journals.c.place).where(journals.c.name == journal))
    return None if found is None else int(found)


def _append(
    connection: Connection, *, journal: str, batch: Callable[[], JournalBatch], now: float, charges: BudgetCharges
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
        _write(connection, _INTO_LEDGER, len(LedgerLine._fields), rows)
        _add_sums(connection, sums)
        budgets.account(connection, journal, charges(budgets.with_advance(connection, journal), part.lines), now)
    if part.after == CLOSED_OFFSET:
        budgets.close(connection, journal)
    return part


def _collect(connection: Connection, *, results: Sequence[PendingResult], line: LedgerLine) -> Mapping[str, int] | None:
    if not pending.remove_results(connection, results):
        return None
    rows, sums = _rows_and_sums([line])
    _write(connection, _INTO_LEDGER, len(LedgerLine._fields), rows)
    known = [0] * SUM_COLUMNS.index("unpriced") + [-1] + [0] * (len(SUM_COLUMNS) - SUM_COLUMNS.index("unpriced") - 1)
    priced = [(day(r.at), r.project_id, r.token_id, r.api, r.model, *known) for r in results]
    _add_sums(connection, _merge([*sums, *priced]))
    given = pending.corrections(results, line)
    budgets.correct(connection, given)
    return given


def _write(connection: Connection, into: str, width: int, rows: Sequence[tuple[Any, ...]], end: str = "") -> None:
    """Insert rows, many with one statement.

    A statement for each would let go of the interpreter and wait for it again as often, which under load takes longer
    than all else; and these few statements are always the same, so that a driver need not read them again.
    """
    place = "?" if connection.dialect.paramstyle == "qmark" else "%s"
    done = 0
    for many in ROWS_PER_STATEMENT:
        while len(rows) - done >= many:
            flat = tuple(chain.from_iterable(rows[done : done + many]))
            connection.exec_driver_sql(f"{into} VALUES {_places(place, width, many)} {end}", flat)
            done += many


@lru_cache(32)
def _places(place: str, width: int, many: int) -> str:
    """The places of the values of so many rows in a statement."""
    return ",".join([f"({','.join([place] * width)})"] * many)


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


def day(at: float) -> str:
    """The UTC day of a time."""
    return _day(int(at // 86400))


@lru_cache(64)
def _day(number: int) -> str:
    return datetime.fromtimestamp(number * 86400, UTC).strftime("%Y-%m-%d")


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


def _add_sums(connection: Connection, sums: Sequence[tuple[Any, ...]]) -> None:
    _write(connection, _INTO_USAGE, len(KEY_COLUMNS) + len(SUM_COLUMNS), sums, upsert_clause(usage))
    of_projects = _without_tokens(sums)
    width = len(PROJECT_KEY_COLUMNS) + len(SUM_COLUMNS)
    _write(connection, _INTO_PROJECT_USAGE, width, of_projects, upsert_clause(project_usage))


def _without_tokens(sums: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return _merge([row[:_TOKEN] + row[_TOKEN + 1 :] for row in sums], len(PROJECT_KEY_COLUMNS))


def upsert_clause(table: Table) -> str:
    """What follows the values where they are to be added to a row that is there, for SQLite and PostgreSQL alike."""
    keys = ", ".join(column.name for column in table.primary_key)
    added = ", ".join(f"{name} = {table.name}.{name} + excluded.{name}" for name in SUM_COLUMNS)
    return f"ON CONFLICT ({keys}) DO UPDATE SET {added}"


def _roll_up(
    connection: Connection, *, lines_before: float, days_before: str, limit: int, now: float
) -> tuple[int, int]:
    oldest = select(ledger.c.id).where(ledger.c.at < lines_before).order_by(ledger.c.at).limit(limit)
    ids = list(connection.scalars(oldest))
    if ids:
        connection.execute(delete(ledger).where(ledger.c.id == bindparam("old")), [{"old": each} for each in ids])
    days = select(usage).where(usage.c.period < days_before, func.length(usage.c.period) == 10).limit(limit)
    rows = [tuple(row) for row in connection.execute(days)]
    if rows:
        months = _by_month(rows)
        _write(connection, _INTO_USAGE, len(KEY_COLUMNS) + len(SUM_COLUMNS), months, upsert_clause(usage))
        keys = [{f"old_{name}": row[at] for at, name in enumerate(KEY_COLUMNS)} for row in rows]
        connection.execute(
            delete(usage).where(*(usage.c[name] == bindparam(f"old_{name}") for name in KEY_COLUMNS)), keys
        )
        _fold_project_days(connection, rows)
    # The row of a journal that is gone for good; it was to be removed with it, and something came between.
    connection.execute(
        delete(journals).where(journals.c.place == CLOSED_OFFSET, journals.c.updated_at < now - 7 * 86400)
    )
    return len(ids), len(rows)


def _fold_project_days(connection: Connection, days: Sequence[tuple[Any, ...]]) -> None:
    """Move what these days' rows add up to without tokens to their months.

    Of a day that has more rows than are folded at once its row keeps the rest.
    """
    key = len(PROJECT_KEY_COLUMNS)
    of_projects = _without_tokens(days)
    months = _merge([(row[0][:7], *row[1:]) for row in of_projects], key)
    folded = [(*row[:key], *(-value for value in row[key:])) for row in of_projects]
    for rows in (months, folded):
        _write(connection, _INTO_PROJECT_USAGE, key + len(SUM_COLUMNS), rows, upsert_clause(project_usage))
    of_tokens = exists().where(*(usage.c[name] == project_usage.c[name] for name in PROJECT_KEY_COLUMNS))
    gone = delete(project_usage).where(
        *(project_usage.c[name] == bindparam(f"old_{name}") for name in PROJECT_KEY_COLUMNS), ~of_tokens
    )
    connection.execute(
        gone, [{f"old_{name}": row[at] for at, name in enumerate(PROJECT_KEY_COLUMNS)} for row in folded]
    )


def _by_month(days: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The sums of these by month."""
    return _merge([(row[0][:7], *row[1:]) for row in days])


def _merge(rows: Sequence[tuple[Any, ...]], keys: int = len(KEY_COLUMNS)) -> list[tuple[Any, ...]]:
    """One row for each key: PostgreSQL refuses to add to a row twice with one statement."""
    sums: dict[tuple[str, ...], list[Any]] = {}
    for row in rows:
        known = sums.setdefault(tuple(row[:keys]), [0] * len(SUM_COLUMNS))
        for at, value in enumerate(row[keys:]):
            known[at] += value
    return [(*key, *values) for key, values in sorted(sums.items())]
