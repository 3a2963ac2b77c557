"""What was spent of budgets, in SQL, and which process has how much of it in advance. Every function here blocks.

C{spending} is what a budget has lost: what requests took, and what processes have in advance. C{budget_advances} is,
for each process, what it took that no line of its ledger accounts for yet: its room, what requests under way have
claimed, and what was settled a moment ago. The ledger lowers it in the transaction that enters a process's lines; when
a process's journal is closed, by itself or by whoever found it, the rest was never spent and goes back to the budget.
So after a crash a budget has lost what the ledger says, and nothing else.

Rows are locked in one order everywhere, C{spending} before C{budget_advances} and by key, so that no two processes ever
wait for each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sqlalchemy import Connection, bindparam, delete, exists, func, insert, select, update

from llmproxy.model import Advance
from llmproxy.store.tables import advances, spending

ADVANCE_COUNTS_SECONDS = 600.0  # for which an advance that nobody touches may still come back soon


def take(
    connection: Connection, key: str, least: int, most: int, limit: int, ends: float, run: str, now: float
) -> Advance:
    """Take a part of what is left. The budget's row is locked meanwhile; SQLite has one writer."""
    spent = connection.scalar(select(spending.c.amount).where(spending.c.id == key).with_for_update())
    if spent is None:
        connection.execute(insert(spending).values(id=key, amount=0, ends=ends))
        spent = 0
    taken = min(most, limit - spent)
    if taken < least:
        return Advance(0, spent, _elsewhere(connection, key, run, now))
    connection.execute(update(spending).where(spending.c.id == key).values(amount=spent + taken))
    _advance(connection, run, key, taken, ends, now)
    return Advance(taken, spent + taken, 0 if taken == most else _elsewhere(connection, key, run, now))


def _elsewhere(connection: Connection, key: str, run: str, now: float) -> int:
    """What other processes have of it, as far as they live."""
    since = now - ADVANCE_COUNTS_SECONDS
    others = select(func.sum(advances.c.amount)).where(
        advances.c.budget == key, advances.c.run != run, advances.c.updated_at > since
    )
    return max(int(connection.scalar(others) or 0), 0)


def _advance(connection: Connection, run: str, key: str, amount: int, ends: float, now: float) -> None:
    if not run:  # a process without a ledger: nobody could ever tell what it spent
        return
    changed = {"wanted_run": run, "wanted": key, "less": -amount, "now": now}
    if not connection.execute(_LOWER, changed).rowcount:
        connection.execute(insert(advances).values(run=run, budget=key, amount=amount, ends=ends, updated_at=now))


def give_back(connection: Connection, amounts: Mapping[str, int], run: str, now: float) -> None:
    """Give back what was taken; nothing where the process's journal is closed, since then all has been given back."""
    for key, amount in sorted(amounts.items()):
        if run:
            of_run = exists().where(advances.c.run == run, advances.c.budget == key)
            if connection.execute(_GIVE.where(of_run), {"wanted": key, "given": amount}).rowcount:
                connection.execute(_LOWER, {"wanted_run": run, "wanted": key, "less": amount, "now": now})
        else:
            connection.execute(_GIVE, {"wanted": key, "given": amount})


def with_advance(connection: Connection, run: str) -> list[str]:
    """The budgets of which this process has something."""
    return list(connection.scalars(select(advances.c.budget).where(advances.c.run == run)))


def account(connection: Connection, run: str, charges: Mapping[str, int], now: float) -> None:
    """The ledger has lines of this process that charge so much to each budget: that is spent, and not in advance."""
    rows = [
        {"wanted_run": run, "wanted": key, "less": less, "now": now} for key, less in sorted(charges.items()) if less
    ]
    if rows:
        connection.execute(_LOWER, rows)


def close(connection: Connection, run: str) -> None:
    """All lines of this process are in the ledger: what it took beyond them was never spent."""
    rows = connection.execute(
        select(advances.c.budget, advances.c.amount).where(advances.c.run == run).order_by(advances.c.budget)
    ).all()
    for row in rows:
        connection.execute(_GIVE, {"wanted": row.budget, "given": row.amount})
    connection.execute(delete(advances).where(advances.c.run == run))


def correct(connection: Connection, amounts: Mapping[str, int]) -> None:
    """Take back what was spent of these budgets by requests that are long over; less than nothing to spend more."""
    rows = [{"wanted": key, "given": amount} for key, amount in sorted(amounts.items())]
    if rows:
        connection.execute(_GIVE, rows)


def amounts_spent(connection: Connection, keys: Iterable[str]) -> dict[str, int]:
    wanted = select(spending.c.id, spending.c.amount).where(spending.c.id.in_(list(keys)))
    return {row.id: row.amount for row in connection.execute(wanted)}


def amounts_charged(connection: Connection, keys: Iterable[str]) -> dict[str, int]:
    """As L{amounts_spent}, without what processes have in advance: what lines of the ledger account for."""
    named, ahead = list(keys), select(advances.c.budget, func.sum(advances.c.amount)).group_by(advances.c.budget)
    in_advance = {row[0]: int(row[1]) for row in connection.execute(ahead.where(advances.c.budget.in_(named)))}
    return {key: spent - in_advance.get(key, 0) for key, spent in amounts_spent(connection, named).items()}


def delete_ended(connection: Connection, before: float) -> int:
    connection.execute(delete(advances).where(advances.c.ends > 0, advances.c.ends < before))
    return connection.execute(delete(spending).where(spending.c.ends > 0, spending.c.ends < before)).rowcount


_GIVE = (
    update(spending).where(spending.c.id == bindparam("wanted")).values(amount=spending.c.amount - bindparam("given"))
)
_LOWER = (
    update(advances)
    .where(advances.c.run == bindparam("wanted_run"), advances.c.budget == bindparam("wanted"))
    .values(amount=advances.c.amount - bindparam("less"), updated_at=bindparam("now"))
)
