"""Which projects have changed, in the order of their commits. Every function here blocks."""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from llmproxy.model import Changes
from llmproxy.store.tables import changes, epochs

MAX_CHANGES = 1000


def record(connection: Connection, project_id: str) -> None:
    """Write down that this project has changed: the last statement of the transaction that changes it.

    The counter's row stays locked until the commit, so numbers become visible in their order and none can be missed;
    whoever holds it waits for nothing else.
    """
    connection.execute(_COUNT)
    epoch = connection.execute(_NUMBER).scalar_one()
    connection.execute(insert(changes).values(epoch=epoch, project_id=project_id))
    connection.execute(delete(changes).where(changes.c.epoch <= epoch - MAX_CHANGES))


def since(connection: Connection, epoch: int | None) -> Changes:
    """What has changed after this epoch; everything, where that is not written down (any more)."""
    if epoch is not None:
        rows = connection.execute(_SINCE, {"epoch": epoch}).all()
        if rows and rows[0].epoch == epoch:
            return Changes(rows[-1].epoch, tuple(dict.fromkeys(row.project_id for row in rows[1:])))
    return Changes(connection.execute(_NUMBER).scalar_one(), None)


_COUNT = update(epochs).where(epochs.c.name == "changes").values(number=epochs.c.number + 1)
_NUMBER = select(epochs.c.number).where(epochs.c.name == "changes")
_SINCE = select(changes).where(changes.c.epoch >= bindparam("epoch")).order_by(changes.c.epoch).limit(MAX_CHANGES + 1)
