"""Keys that stay when the encryption key changes, sealed in the database; and sealing all anew. Everything blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, Table, delete, insert, select, update

from llmproxy.keyring import CREATIONS, PROVIDER_KEYS, Keyring, KeyringSealer
from llmproxy.sealing import CannotOpen, Sealer, derive
from llmproxy.store.projects import further_sealing_context, sealing_context
from llmproxy.store.tables import canaries, creations, further_keys, provider_keys

BATCH_ROWS = 500

_CANARY = "key"
_DATA_KEY = "data key"


def unlock(connection: Connection, keyring: Keyring) -> None:
    """Have the keyring's data keys be those of this database; one that has none keeps those of its encryption key."""
    stored = _stored(connection)
    sealer, canary = keyring.sealer(PROVIDER_KEYS), stored.get(_CANARY)
    owner = _owner(keyring, canary)
    if canary is not None and owner is None:
        return  # whoever tries our keys on the canary says so
    for purpose, key in keyring.data_keys.items():
        if purpose in stored:
            key.use(bytes.fromhex(sealer.open(stored[purpose], _DATA_KEY, purpose)))
        else:
            key.use(derive(owner or keyring.keys[0], purpose))
            sealed = sealer.seal(bytes(key).hex(), _DATA_KEY, purpose)
            connection.execute(insert(canaries).values(name=purpose, sealed=sealed))


def data_key(connection: Connection, keyring: Keyring, purpose: str) -> bytes:
    """One of them, as L{unlock} would have it; nothing is written. L{CannotOpen} where no key of ours opens it."""
    stored = _stored(connection)
    if purpose not in stored:
        canary = stored.get(_CANARY)
        owner = _owner(keyring, canary)
        if canary is not None and owner is None:
            raise CannotOpen("The database was made with another encryption key.")
        return derive(owner or keyring.keys[0], purpose)
    return bytes.fromhex(keyring.sealer(PROVIDER_KEYS).open(stored[purpose], _DATA_KEY, purpose))


def _stored(connection: Connection) -> dict[str, bytes]:
    return {row.name: bytes(row.sealed) for row in connection.execute(select(canaries.c.name, canaries.c.sealed))}


def _owner(keyring: Keyring, canary: bytes | None) -> str | None:
    """The encryption key that this database was sealed with; C{None} where it is new, or that is none of ours."""
    for key in keyring.keys if canary is not None else ():
        try:
            Sealer(derive(key, PROVIDER_KEYS)).open(canary or b"", "canary", _CANARY)
        except CannotOpen:
            continue
        return key
    return None


class SealedRow(NamedTuple):
    """Something sealed in the database.

    @ivar where: Its table's key; C{context}: what it was sealed for.
    """

    table: Table
    where: dict[str, Any]
    sealed: bytes
    sealer: KeyringSealer
    context: tuple[str, ...]


def old_rows(connection: Connection, keyring: Keyring) -> list[SealedRow]:
    """All that was not sealed with the first key of the keyring."""
    return [row for row in _rows(connection, keyring) if not row.sealer.is_newest(row.sealed, *row.context)]


def _rows(connection: Connection, keyring: Keyring) -> Iterator[SealedRow]:
    sealer, of_creations = keyring.sealer(PROVIDER_KEYS), keyring.sealer(CREATIONS)
    for name, sealed in _stored(connection).items():
        context = ("canary", name) if name == _CANARY else (_DATA_KEY, name)
        yield SealedRow(canaries, {"name": name}, sealed, sealer, context)
    for row in connection.execute(select(provider_keys)):
        where = {"project_id": row.project_id, "api": row.api}
        yield SealedRow(provider_keys, where, bytes(row.sealed), sealer, sealing_context(row))
    for row in connection.execute(select(further_keys)):
        where = {"project_id": row.project_id, "api": row.api, "position": row.position}
        yield SealedRow(further_keys, where, bytes(row.sealed), sealer, further_sealing_context(row))
    for row in connection.execute(select(creations).where(creations.c.sealed.is_not(None))):
        yield SealedRow(creations, {"name": row.name}, bytes(row.sealed), of_creations, ("creation", row.name))


def seal_anew(engine: Engine, rows: list[SealedRow]) -> Iterator[int]:
    """Seal these with the first key, in transactions of L{BATCH_ROWS}; how many that were, after each.

    What somebody has changed meanwhile stays as they left it. L{CannotOpen} where no key of the keyring opens one.
    """
    for first in range(0, len(rows), BATCH_ROWS):
        batch = rows[first : first + BATCH_ROWS]
        sealed = [row.sealer.seal(row.sealer.open(row.sealed, *row.context), *row.context) for row in batch]
        with engine.begin() as connection:
            for row, anew in zip(batch, sealed, strict=True):
                table = row.table
                where = [*(table.c[name] == value for name, value in row.where.items()), table.c.sealed == row.sealed]
                connection.execute(update(table).where(*where).values(sealed=anew))
        yield len(batch)


def drop_unreadable_creations(engine: Engine, rows: list[SealedRow]) -> list[SealedRow]:
    """Remove responses to creations that no key opens any more: kept for a day, and another key was here since.

    Returns the other rows.
    """
    kept = []
    for row in rows:
        try:
            row.sealer.open(row.sealed, *row.context)
        except CannotOpen:
            if row.table is not creations:
                raise
            with engine.begin() as connection:
                connection.execute(delete(creations).where(creations.c.name == row.where["name"]))
            continue
        kept.append(row)
    return kept
