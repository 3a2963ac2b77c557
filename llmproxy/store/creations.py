"""What was answered to creations that carried an C{Idempotency-Key}, for a day, in SQL."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from sqlalchemy import Connection, delete, insert, select, update
from twisted.internet.defer import Deferred

from llmproxy.base.coroutines import deferred
from llmproxy.errors import Conflict
from llmproxy.errors.management import IdempotencyInProgress, IdempotencyKeyReused
from llmproxy.sealing import CannotOpen, Sealer
from llmproxy.store.store import Store
from llmproxy.store.tables import creations

KEEP_SECONDS = 86400.0
MAX_OPEN_SECONDS = 60.0  # after which one that has not been answered was left by a process that died


class CreationTable:
    """Keeps the answers sealed: some have a token in them."""

    def __init__(self, store: Store, sealer: Sealer, now: Callable[[], float]) -> None:
        self._store = store
        self._sealer = sealer
        self._now = now

    @deferred
    async def begin(self, name: str, fingerprint: str) -> str | None:
        try:
            sealed = await self._store.manage(partial(_begin, name=name, fingerprint=fingerprint, now=self._now()))
        except Conflict as e:  # another process began it at this moment
            raise IdempotencyInProgress(retry_after=1.0) from e
        if sealed is None:
            return None
        try:
            return self._sealer.open(sealed, "creation", name)
        except CannotOpen as e:  # the encryption key is another since
            raise IdempotencyKeyReused("What was answered then cannot be read any more. Use another key.") from e

    def finish(self, name: str, answer: str) -> Deferred[None]:
        return self._store.manage(partial(_finish, name=name, sealed=self._sealer.seal(answer, "creation", name)))

    def release(self, name: str) -> Deferred[None]:
        return self._store.manage(partial(_release, name=name))


def _begin(connection: Connection, name: str, fingerprint: str, now: float) -> bytes | None:
    connection.execute(delete(creations).where(creations.c.at < now - KEEP_SECONDS))
    found = connection.execute(select(creations).where(creations.c.name == name)).first()
    if found is not None and found.sealed is None and found.at <= now - MAX_OPEN_SECONDS:
        connection.execute(delete(creations).where(creations.c.name == name))
        found = None
    if found is None:
        connection.execute(insert(creations).values(name=name, fingerprint=fingerprint, at=now))
        return None
    if found.fingerprint != fingerprint:
        raise IdempotencyKeyReused()
    if found.sealed is None:
        raise IdempotencyInProgress(retry_after=1.0)
    return bytes(found.sealed)


def _finish(connection: Connection, name: str, sealed: bytes) -> None:
    connection.execute(update(creations).where(creations.c.name == name).values(sealed=sealed))


def _release(connection: Connection, name: str) -> None:
    connection.execute(delete(creations).where(creations.c.name == name, creations.c.sealed.is_(None)))
