"""Management keys, in SQL: of the keys themselves only keyed hashes."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update
from twisted.internet.defer import Deferred

from llmproxy.base.coroutines import deferred
from llmproxy.base.token_format import new_management_key
from llmproxy.errors import NotFound, StoreUnavailable, TokenInactive, TokenNotFound
from llmproxy.management_key import ManagementKey
from llmproxy.model import Page, PageRequest
from llmproxy.sealing import RandomBytes, TokenHasher
from llmproxy.store import pages
from llmproxy.store.store import Store
from llmproxy.store.tables import management_keys

USE_INTERVAL_SECONDS = 60.0  # between two times that the use of one key is written down
PREFIX_CHARACTERS = 13

_SHOWN = [column for column in management_keys.c if column.name != "hash"]


class ManagementKeyTable:
    """Keeps them in the store's database.

    @param hasher: Hashes keys, with a key for this purpose only; C{now}: seconds since the epoch.
    """

    def __init__(self, store: Store, hasher: TokenHasher, now: Callable[[], float], random: RandomBytes) -> None:
        self._store = store
        self._hasher = hasher
        self._now = now
        self._random = random
        self._using: Deferred[None] | None = None

    @deferred
    async def create_key(self, key: ManagementKey) -> tuple[ManagementKey, str]:
        secret = new_management_key(self._random)
        made = replace(
            key,
            id=uuid.UUID(bytes=self._random(16), version=4).hex,
            prefix=secret[:PREFIX_CHARACTERS],
            created_at=self._now(),
            last_used_at=None,
            deactivated_at=None,
        )
        return await self._store.manage(partial(_create, key=made, hashed=self._hasher.hash(secret))), secret

    @deferred
    async def get_key(self, key_id: str) -> ManagementKey:
        return await self._store.report(partial(_get, key_id=key_id))

    @deferred
    async def key_page(self, request: PageRequest) -> Page[ManagementKey]:
        return await self._store.report(partial(_page, request=request))

    @deferred
    async def revoke_key(self, key_id: str) -> ManagementKey:
        return await self._store.manage(partial(_revoke, key_id=key_id, now=self._now()))

    @deferred
    async def validate_key(self, secret: str) -> ManagementKey:
        found = await self._store.read(partial(_of_hash, hashed=self._hasher.hash(secret)))
        if found is None:
            raise TokenNotFound()
        if not found.active:
            raise TokenInactive()
        now = self._now()
        if self._using is None and now - (found.last_used_at or 0.0) >= USE_INTERVAL_SECONDS:
            self._using = Deferred.fromCoroutine(self._use(found.id, now))  # its bearer does not wait for that
        return found

    async def _use(self, key_id: str, now: float) -> None:
        try:
            await self._store.write(partial(_use, key_id=key_id, now=now))
        except StoreUnavailable:
            pass  # the next use is written down
        finally:
            self._using = None


def _create(connection: Connection, key: ManagementKey, hashed: str) -> ManagementKey:
    row = {column.name: getattr(key, column.name) for column in _SHOWN}
    row["projects"] = None if key.projects is None else list(key.projects)
    connection.execute(insert(management_keys).values(row | {"hash": hashed}))
    return _get(connection, key.id)


def _get(connection: Connection, key_id: str) -> ManagementKey:
    row = connection.execute(select(*_SHOWN).where(management_keys.c.id == key_id)).first()
    if row is None:
        raise NotFound(f"There is no management key {key_id}.")
    return _key(row)


def _page(connection: Connection, request: PageRequest) -> Page[ManagementKey]:
    by = (management_keys.c.created_at, management_keys.c.id)
    rows, cursor = pages.page(connection, select(*_SHOWN), by, request)
    return Page([_key(row) for row in rows], pages.total(connection, select(management_keys.c.id), request), cursor)


def _revoke(connection: Connection, key_id: str, now: float) -> ManagementKey:
    active = (management_keys.c.id == key_id, management_keys.c.deactivated_at.is_(None))
    connection.execute(update(management_keys).where(*active).values(deactivated_at=now))
    return _get(connection, key_id)


def _of_hash(connection: Connection, hashed: str) -> ManagementKey | None:
    row = connection.execute(select(*_SHOWN).where(management_keys.c.hash == hashed)).first()
    return None if row is None else _key(row)


def _use(connection: Connection, key_id: str, now: float) -> None:
    connection.execute(update(management_keys).where(management_keys.c.id == key_id).values(last_used_at=now))


def _key(row: Row[Any]) -> ManagementKey:
    return ManagementKey(**{**row._mapping, "projects": None if row.projects is None else tuple(row.projects)})
