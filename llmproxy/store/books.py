"""The ledger's tables: lines are entered once, with their sums, and given out as reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

from sqlalchemy import (
    Connection,
    Executable,
    Select,
    String,
    and_,
    bindparam,
    delete,
    func,
    insert,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import mysql, postgresql, sqlite

from llmproxy.aio import deferred
from llmproxy.model import LedgerLine
from llmproxy.store.store import Store
from llmproxy.store.tables import journals, ledger, usage

CLOSED = 2**62  # the place behind everything that a journal can hold

KEYS = ("period", "project_id", "token_id", "api", "model")
SUMS = (
    "requests",
    "failed",
    "estimated",
    "unpriced",
    "input_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
    "cost_usd",
)
GROUPS: Mapping[str, Any] = {
    "project": usage.c.project_id,
    "token": usage.c.token_id,
    "api": usage.c.api,
    "model": usage.c.model,
    "day": usage.c.period,
    "month": func.substr(usage.c.period, 1, 7),
}

_TEXTS = [(LedgerLine._fields.index(c.name), c.type.length or 0) for c in ledger.c if isinstance(c.type, String)]


class Batch(NamedTuple):
    """A part of a journal.

    @ivar before: The place where it begins; C{after}, where it ends.
    """

    before: int
    after: int
    lines: Sequence[LedgerLine]


class Question(NamedTuple):
    """What a report is asked for.

    @ivar by: Names of L{GROUPS}.
    @ivar since: The first day, such as C{2026-11-01}; C{until} the day behind the last; C{""} for no end.
    """

    by: tuple[str, ...]
    since: str = ""
    until: str = ""
    project_id: str = ""
    limit: int = 100
    offset: int = 0


class Report(NamedTuple):
    """The rows of a part of a report, and how many there are in all."""

    rows: list[dict[str, Any]]
    total: int


class Books:
    """The ledger in the store."""

    def __init__(self, store: Store, now: Callable[[], float]) -> None:
        self._store = store
        self._now = now

    @deferred
    async def place(self, journal: str) -> int | None:
        """How far this journal has been entered; C{None} where nothing of it has."""
        return await self._store.read(lambda connection: _place(connection, journal))

    @deferred
    async def enter(self, journal: str, batch: Callable[[], Batch]) -> Batch | None:
        """Enter a part of a journal, which is read in the store's thread; fire with it.

        Fire with C{None}, and enter nothing, where the journal has not been entered exactly up to where it begins.
        """
        return await self._store.write(partial(_enter, journal=journal, batch=batch, now=self._now()))

    @deferred
    async def forget(self, journal: str) -> None:
        """The journal is gone, and nobody will ask for its place."""
        await self._store.write(lambda c: c.execute(delete(journals).where(journals.c.name == journal)))

    @deferred
    async def report(self, question: Question) -> Report:
        """Sums of what was used."""
        return await self._store.read(partial(_report, question=question))

    @deferred
    async def fold(self, lines_before: float, days_before: str, limit: int) -> tuple[int, int]:
        """Remove at most so many lines from before this time, and fold the days before this one into their months.

        Fire with how many lines were removed, and how many sums were folded.
        """
        return await self._store.write(
            partial(_fold, lines_before=lines_before, days_before=days_before, limit=limit, now=self._now())
        )


def _place(connection: Connection, journal: str) -> int | None:
    found = connection.scalar(select(journals.c.place).where(journals.c.name == journal))
    return None if found is None else int(found)


def _enter(connection: Connection, *, journal: str, batch: Callable[[], Batch], now: float) -> Batch | None:
    """The journal's place moves first: whoever else enters the same part waits for this, and then finds it moved."""
    part = batch()
    moved = connection.execute(
        update(journals)
        .where(journals.c.name == journal, journals.c.place == part.before)
        .values(place=part.after, updated_at=now)
    )
    if not moved.rowcount:
        if _place(connection, journal) is not None:
            return None
        connection.execute(insert(journals).values(name=journal, place=part.after, updated_at=now))
    if part.lines:
        lines = [_row(line) for line in part.lines]
        connection.execute(insert(ledger), lines)
        _add(connection, _summed(lines))
    return part


def _row(line: LedgerLine) -> dict[str, Any]:
    """As every database takes it: no longer than its column, and without the character that PostgreSQL has not."""
    values: list[Any] = list(line)
    for at, width in _TEXTS:
        text = values[at]
        if len(text) > width or not text.isprintable():
            values[at] = text.replace("\0", "").encode("utf-8", "replace").decode()[:width]
    return dict(zip(LedgerLine._fields, values, strict=True))


def day(at: float) -> str:
    """The UTC day of a time."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")


def _summed(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The lines' sums by L{KEYS}."""
    sums: dict[tuple[str, ...], list[Any]] = {}
    for line in lines:
        key = (day(line["at"]), line["project_id"], line["token_id"], line["api"], line["answered"] or line["model"])
        used = line["input_tokens"] or line["output_tokens"]
        values = (
            1,
            int(line["outcome"] == "failed"),
            int(line["basis"] == "estimated"),
            int(line["cost_usd"] is None and bool(used)),
            *(line[name] for name in SUMS[4:9]),
            line["cost_usd"] or 0.0,
        )
        known = sums.setdefault(key, [0] * len(SUMS))
        for at, value in enumerate(values):
            known[at] += value
    # In one order everywhere, so that two processes that add to the same rows never wait for each other.
    return [dict(zip(KEYS + SUMS, (*key, *values), strict=True)) for key, values in sorted(sums.items())]


def _add(connection: Connection, sums: Sequence[Mapping[str, Any]]) -> None:
    connection.execute(adding(connection.dialect.name), sums)


def adding(backend: str) -> Executable:
    """The statement that adds to a row of sums, or makes it; each database has its own words for that."""
    if backend == "mysql":
        new = mysql.insert(usage)
        added: Executable = new.on_duplicate_key_update({name: usage.c[name] + new.inserted[name] for name in SUMS})
        return added
    other = (postgresql if backend == "postgresql" else sqlite).insert(usage)
    added = other.on_conflict_do_update(
        index_elements=list(KEYS), set_={name: usage.c[name] + other.excluded[name] for name in SUMS}
    )
    return added


def _report(connection: Connection, question: Question) -> Report:
    groups = [GROUPS[name].label(name) for name in question.by]
    summed = [func.coalesce(func.sum(usage.c[name]), 0).label(name) for name in SUMS]
    rows: Select[Any] = select(*groups, *summed).where(*_within(question))
    if not groups:
        return Report([_shown(row) for row in connection.execute(rows).mappings()], 1)
    rows = rows.group_by(*(GROUPS[name] for name in question.by))
    total = connection.scalar(select(func.count()).select_from(rows.subquery())) or 0
    ordered = rows.order_by(*(literal_column(name) for name in question.by))
    part = connection.execute(ordered.limit(question.limit).offset(question.offset))
    return Report([_shown(row) for row in part.mappings()], int(total))


def _shown(row: Mapping[Any, Any]) -> dict[str, Any]:
    """PostgreSQL and MySQL sum up integers as decimals."""
    return {
        name: value if isinstance(value, str) else float(value) if name == "cost_usd" else int(value)
        for name, value in row.items()
    }


def _within(question: Question) -> list[Any]:
    """A month into which days were folded belongs to a range that has its first day."""
    first_day = usage.c.period + "-01"
    conditions: list[Any] = []
    is_month = func.length(usage.c.period) == 7
    if question.since:
        conditions.append(or_(usage.c.period >= question.since, and_(is_month, first_day >= question.since)))
    if question.until:
        conditions.append(
            or_(and_(~is_month, usage.c.period < question.until), and_(is_month, first_day < question.until))
        )
    if question.project_id:
        conditions.append(usage.c.project_id == question.project_id)
    return conditions


def _fold(connection: Connection, *, lines_before: float, days_before: str, limit: int, now: float) -> tuple[int, int]:
    oldest = select(ledger.c.id).where(ledger.c.at < lines_before).order_by(ledger.c.at).limit(limit)
    ids = list(connection.scalars(oldest))
    if ids:
        connection.execute(delete(ledger).where(ledger.c.id == bindparam("old")), [{"old": each} for each in ids])
    days = select(usage).where(usage.c.period < days_before, func.length(usage.c.period) == 10).limit(limit)
    rows = [dict(row) for row in connection.execute(days).mappings()]
    if rows:
        _add(connection, [{**row, "period": row["period"][:7]} for row in rows])
        keys = [{f"old_{name}": row[name] for name in KEYS} for row in rows]
        connection.execute(delete(usage).where(*(usage.c[name] == bindparam(f"old_{name}") for name in KEYS)), keys)
    # The row of a journal that is gone for good; it was to be removed with it, and something came between.
    connection.execute(delete(journals).where(journals.c.place == CLOSED, journals.c.updated_at < now - 7 * 86400))
    return len(ids), len(rows)
