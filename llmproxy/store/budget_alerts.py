"""What was alerted of budgets, in SQL: whichever process notices first, the others learn that it is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from sqlalchemy import Connection, Insert, delete, select, tuple_, update
from sqlalchemy.dialects import sqlite
from twisted.internet.defer import Deferred

from llmproxy.model import BudgetAlert, Page, PageRequest
from llmproxy.store.pages import decode_cursor, encode_cursor, total
from llmproxy.store.store import Store
from llmproxy.store.tables import budget_alerts, project_groups, projects, tokens

KEEP_SECONDS = 400 * 86400.0  # after the end of the period
REDELIVER_SECONDS = 86400.0  # for which an alert that nobody got is worth sending after a restart
MAX_REDELIVERED = 1000  # alerts

_NEWEST_FIRST = (budget_alerts.c.at, budget_alerts.c.id)


class AlertFilter(NamedTuple):
    """Which alerts are wanted; what is left empty does not matter.

    @ivar projects: Only those that concern these; C{None} for all.
    @ivar owner: C{token}, C{project}, C{group} or C{api}; C{owner_id}: its id.
    """

    projects: tuple[str, ...] | None = None
    owner: str = ""
    owner_id: str = ""


class AlertTable:
    """Keeps alerts in the store's database.

    @param now: Seconds since the epoch.
    """

    def __init__(self, store: Store, now: Callable[[], float]) -> None:
        self._store = store
        self._now = now

    def record(self, alerts: Sequence[BudgetAlert]) -> Deferred[list[BudgetAlert]]:
        """Fire with those of them that nobody has recorded before, each with the name and the project of its owner."""
        return self._store.write(partial(_record, alerts=list(alerts)))

    def mark_delivered(self, alert_id: str) -> Deferred[None]:
        """The receiver has it."""
        return self._store.write(partial(_delivered, alert_id=alert_id, now=self._now()))

    def undelivered(self) -> Deferred[list[BudgetAlert]]:
        """Fire with those of the last day that no receiver has got, the oldest first."""
        return self._store.read(partial(_undelivered, since=self._now() - REDELIVER_SECONDS))

    def alert_page(self, wanted: AlertFilter, request: PageRequest) -> Deferred[Page[BudgetAlert]]:
        """Fire with a page of them, the latest first; L{errors.Invalid} where the cursor is none."""
        return self._store.report(partial(_page, wanted=wanted, request=request))

    def purge(self) -> Deferred[int]:
        """Remove those of budgets whose period is long over; fire with how many these were."""
        return self._store.write(partial(_purge, before=self._now() - KEEP_SECONDS))


def _record(connection: Connection, alerts: Sequence[BudgetAlert]) -> list[BudgetAlert]:
    kept = []
    for alert in sorted(alerts, key=lambda each: (each.budget, each.threshold)):  # in one order, or they might deadlock
        complete = _with_owner(connection, alert)
        # PostgreSQL's driver does not say how many rows an INSERT has made.
        if connection.scalar(_insert(connection, complete).returning(budget_alerts.c.id)) is not None:
            kept.append(complete)
    return kept


def _insert(connection: Connection, alert: BudgetAlert) -> Insert:
    values: dict[Any, Any] = dict(zip(BudgetAlert._fields, alert, strict=True))
    if connection.dialect.name == "sqlite":
        return sqlite.insert(budget_alerts).values(values).on_conflict_do_nothing()
    from sqlalchemy.dialects import postgresql  # 2 MB that a daemon on SQLite does not need

    return postgresql.insert(budget_alerts).values(values).on_conflict_do_nothing()


def _with_owner(connection: Connection, alert: BudgetAlert) -> BudgetAlert:
    """With its owner's name, and project: those of a token only the store knows."""
    wanted = alert.owner_id
    if alert.owner == "token":
        row = connection.execute(select(tokens.c.name, tokens.c.project_id).where(tokens.c.id == wanted)).first()
        return alert if row is None else alert._replace(name=row.name, project_id=row.project_id)
    if alert.owner == "project":
        name = connection.scalar(select(projects.c.name).where(projects.c.id == wanted))
        return alert._replace(name=name or "", project_id=wanted)
    if alert.owner == "group":
        name = connection.scalar(select(project_groups.c.name).where(project_groups.c.id == wanted))
        return alert._replace(name=name or "")
    return alert._replace(name=wanted)


def _delivered(connection: Connection, alert_id: str, now: float) -> None:
    connection.execute(update(budget_alerts).where(budget_alerts.c.id == alert_id).values(delivered_at=now))


def _undelivered(connection: Connection, since: float) -> list[BudgetAlert]:
    wanted = select(budget_alerts).where(budget_alerts.c.at >= since, budget_alerts.c.delivered_at.is_(None))
    rows = connection.execute(wanted.order_by(*_NEWEST_FIRST).limit(MAX_REDELIVERED))
    return [BudgetAlert(**row._mapping) for row in rows]


def _page(connection: Connection, wanted: AlertFilter, request: PageRequest) -> Page[BudgetAlert]:
    names = ("owner", "owner_id")
    conditions = [budget_alerts.c[name] == getattr(wanted, name) for name in names if getattr(wanted, name)]
    if wanted.projects is not None:
        conditions.append(budget_alerts.c.project_id.in_(wanted.projects))
    counted = select(budget_alerts.c.id).where(*conditions)
    chosen = select(budget_alerts).where(*conditions)
    if request.cursor:
        chosen = chosen.where(tuple_(*_NEWEST_FIRST) < tuple_(*decode_cursor(request.cursor, [float, str])))
    ordered = chosen.order_by(*(column.desc() for column in _NEWEST_FIRST))
    rows = connection.execute(ordered.limit(request.limit + 1).offset(request.offset)).all()
    items = [BudgetAlert(**row._mapping) for row in rows[: request.limit]]
    cursor = encode_cursor([items[-1].at, items[-1].id]) if len(rows) > request.limit else ""
    return Page(items, total(connection, counted, request), cursor)


def _purge(connection: Connection, before: float) -> int:
    over = delete(budget_alerts).where(budget_alerts.c.ends > 0, budget_alerts.c.ends < before)
    return connection.execute(over).rowcount
