"""What went on, added up by stretches of time: SQL for the C{activity} table."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection, and_, delete, func, or_, select

from llmproxy.store.tables import ACTIVITY_KEY, ACTIVITY_SUMS, activity


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


def read_activity(
    connection: Connection, step: int, since: int, until: int, projects: Collection[str] | None = None, api: str = ""
) -> list[tuple[Any, ...]]:
    """The sums of every stretch of C{step} seconds from C{since} until before C{until}: when it began, then the sums.

    @param projects: Only these; C{None} for all, and for what belongs to none.
    """
    conditions = [activity.c.step == step, activity.c.at >= since, activity.c.at < until]
    if projects is not None:
        conditions.append(activity.c.project_id.in_(sorted(projects)))
    if api:
        conditions.append(activity.c.api == api)
    sums = [func.sum(activity.c[name]) for name in ACTIVITY_SUMS]
    wanted = select(activity.c.at, *sums).where(*conditions).group_by(activity.c.at).order_by(activity.c.at)
    return [tuple(row) for row in connection.execute(wanted)]


def purge_activity(connection: Connection, before: Sequence[tuple[int, float]]) -> int:
    """Forget the rows of each step that began before its time; fire with how many that were."""
    old = [and_(activity.c.step == step, activity.c.at < time) for step, time in before]
    return connection.execute(delete(activity).where(or_(*old))).rowcount
