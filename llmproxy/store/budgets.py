"""What was spent of budgets, in SQL. Every function here blocks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from llmproxy.store.tables import spending


def take(connection: Connection, key: str, least: int, most: int, limit: int, ends: float) -> tuple[int, int]:
    """How much was spent in advance, and what is spent now. The row is locked meanwhile; SQLite has one writer."""
    spent = connection.scalar(select(spending.c.amount).where(spending.c.id == key).with_for_update())
    if spent is None:
        connection.execute(insert(spending).values(id=key, amount=0, ends=ends))
        spent = 0
    taken = min(most, limit - spent)
    if taken < least:
        return 0, spent
    connection.execute(update(spending).where(spending.c.id == key).values(amount=spent + taken))
    return taken, spent + taken


def give(connection: Connection, amounts: Mapping[str, int]) -> None:
    # In one order everywhere, so that two processes that give to the same budgets never wait for each other.
    rows = [{"wanted": key, "less": amount} for key, amount in sorted(amounts.items())]
    if rows:
        connection.execute(_GIVE, rows)


def charge(connection: Connection, amounts: Mapping[str, tuple[int, float]]) -> None:
    for key, (amount, ends) in sorted(amounts.items()):
        if not connection.execute(_GIVE, {"wanted": key, "less": -amount}).rowcount:
            connection.execute(insert(spending).values(id=key, amount=amount, ends=ends))


def spent(connection: Connection, keys: Iterable[str]) -> dict[str, int]:
    wanted = select(spending.c.id, spending.c.amount).where(spending.c.id.in_(list(keys)))
    return {row.id: row.amount for row in connection.execute(wanted)}


def forget(connection: Connection, before: float) -> int:
    return connection.execute(delete(spending).where(spending.c.ends > 0, spending.c.ends < before)).rowcount


_GIVE = (
    update(spending).where(spending.c.id == bindparam("wanted")).values(amount=spending.c.amount - bindparam("less"))
)
