"""What went on, added up by stretches of time: SQL for the C{activity} table."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, delete, desc, func, literal_column, or_, select

from llmproxy.store.tables import ACTIVITY_COUNTS, ACTIVITY_KEY, ACTIVITY_SUMS, activity


def add_activity(connection: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
    """Add these to what is there: L{ACTIVITY_KEY}, each key once, then L{ACTIVITY_SUMS}.

    In one order everywhere, so that two processes that add to the same rows never wait for each other.
    """
    columns = (*ACTIVITY_KEY, *ACTIVITY_SUMS)
    added = ", ".join(f"{name} = {activity.name}.{name} + excluded.{name}" for name in ACTIVITY_SUMS)
    place = "?" if connection.dialect.paramstyle == "qmark" else "%s"
    values = f"({','.join([place] * len(columns))})"
    into = f"INSERT INTO {activity.name} ({', '.join(columns)}) VALUES"
    on_conflict = f"ON CONFLICT ({', '.join(ACTIVITY_KEY)}) DO UPDATE SET {added}"
    ordered = sorted(rows, key=lambda row: row[: len(ACTIVITY_KEY)])
    for row in ordered:
        connection.exec_driver_sql(f"{into} {values} {on_conflict}", row)


MAX_SOUGHT_PROJECTS = 20  # whose rows are looked for one by one
DAY_SECONDS = 86400  # of the longest stretches
EVERYTHING = "*"  # the project, API and model of a row that has all of a stretch added up


class ActivityQuery(NamedTuple):
    """Which rows are wanted: of stretches of C{step} seconds, from C{since} until before C{until}.

    @ivar projects: Only of these; C{None} for all, and for what belongs to none. Without an API that is read from the
        rows of L{EVERYTHING}.
    @ivar api: Only of this one; C{""} for all.
    """

    step: int
    since: int
    until: int
    projects: Collection[str] | None = None
    api: str = ""


def read_activity(connection: Connection, query: ActivityQuery) -> list[tuple[Any, ...]]:
    """The sums of every stretch: when it began, then L{ACTIVITY_SUMS}."""
    sums = [func.sum(activity.c[name]) for name in ACTIVITY_SUMS]
    whole = query.projects is None and not query.api
    rows = activity.c.project_id == EVERYTHING if whole else activity.c.project_id != EVERYTHING
    within = _in_steps(query.step, query.since, query.until)
    if whole or len(query.projects or ()) <= MAX_SOUGHT_PROJECTS:
        # Each stretch by name: the key has the project behind the time, and all others' rows would be read in between.
        stretches = range(-(-query.since // query.step) * query.step, query.until, query.step)
        within = and_(activity.c.step == query.step, activity.c.at.in_(stretches))
    wanted = select(activity.c.at, *sums).where(within, *_narrowed(query), rows)
    wanted = wanted.group_by(activity.c.at).order_by(activity.c.at)
    return [tuple(row) for row in connection.execute(wanted)]


def read_most_active(connection: Connection, query: ActivityQuery, column: str, limit: int) -> list[tuple[Any, ...]]:
    """The values of C{column} that most was spent on: the value, then L{ACTIVITY_COUNTS}; the most first."""
    sums = [func.sum(activity.c[name]).label(name) for name in ACTIVITY_COUNTS]
    named = activity.c[column].not_in(("", EVERYTHING))
    wanted = select(activity.c[column], *sums).where(_within(query), *_narrowed(query), named)
    order: tuple[Any, ...] = (desc(literal_column("cost_usd")), desc(literal_column("requests")), activity.c[column])
    return [tuple(row) for row in connection.execute(wanted.group_by(activity.c[column]).order_by(*order).limit(limit))]


def _narrowed(query: ActivityQuery) -> Iterator[ColumnElement[bool]]:
    if query.projects is not None:
        yield activity.c.project_id.in_(sorted(query.projects))
    if query.api:
        yield activity.c.api == query.api


def _within(query: ActivityQuery) -> ColumnElement[bool]:
    """The same time with fewer rows: whole days within it by their own sums, the rest by shorter stretches."""
    first, last = -(-query.since // DAY_SECONDS) * DAY_SECONDS, query.until // DAY_SECONDS * DAY_SECONDS
    if query.step >= DAY_SECONDS or first >= last:
        return _in_steps(query.step, query.since, query.until)
    parts = ((query.step, query.since, first), (DAY_SECONDS, first, last), (query.step, last, query.until))
    return or_(*(_in_steps(step, since, until) for step, since, until in parts if since < until))


def _in_steps(step: int, since: int, until: int) -> ColumnElement[bool]:
    return and_(activity.c.step == step, activity.c.at >= since, activity.c.at < until)


def purge_activity(connection: Connection, before: Sequence[tuple[int, float]]) -> int:
    """Forget the rows of each step that began before its time; fire with how many that were."""
    old = [and_(activity.c.step == step, activity.c.at < time) for step, time in before]
    return connection.execute(delete(activity).where(or_(*old))).rowcount
