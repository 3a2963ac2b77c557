"""A sealed word that shows at start whether the encryption key is the one that everything was sealed with."""

from __future__ import annotations

import hmac
from pathlib import Path

from sqlalchemy import Connection, insert, inspect, select
from sqlalchemy.exc import SQLAlchemyError

from llmproxy.sealing import CannotOpen, Sealer, TokenHasher
from llmproxy.store.engines import opening_failure, parse_store_url, sqlite_path, upgrade_engine
from llmproxy.store.errors import KeyMissing, WrongKey
from llmproxy.store.sqlite_file import refuse_foreign
from llmproxy.store.tables import canaries

CONNECT_SECONDS = 5.0

_NAME = "key"


def check_key(connection: Connection, sealer: Sealer, hasher: TokenHasher) -> None:
    """Leave a canary in a new database; raise L{WrongKey} where the one found does not open or does not match.

    Its text is a hash, so that it speaks for both keys.
    """
    expected = hasher.hash("canary")
    sealed = connection.scalar(select(canaries.c.sealed).where(canaries.c.name == _NAME))
    if sealed is None:
        connection.execute(insert(canaries).values(name=_NAME, sealed=sealer.seal(expected, "canary", _NAME)))
    elif not hmac.compare_digest(expected, _opened(sealer, bytes(sealed))):
        raise WrongKey(_WRONG)


def refuse_new_key(path: Path, url: str) -> None:
    """A new encryption key is about to be made: raise L{KeyMissing} where the database has another, L{InvalidStoreURL}
    where it is another program's. Blocks."""
    exactly = parse_store_url(url)
    file = sqlite_path(exactly)
    if file is not None and not file.exists():
        return
    if file is not None:
        refuse_foreign(file)
    engine = upgrade_engine(exactly, CONNECT_SECONDS)
    try:
        with engine.connect() as connection:
            used = inspect(connection).has_table(canaries.name) and connection.scalar(
                select(canaries.c.name).where(canaries.c.name == _NAME)
            )
    except SQLAlchemyError as e:
        raise KeyMissing(f"{opening_failure(exactly, e)} {_UNTOLD.format(path=path)}") from e
    finally:
        engine.dispose()
    if used:
        raise KeyMissing(_LOST.format(path=path))


def _opened(sealer: Sealer, sealed: bytes) -> str:
    try:
        return sealer.open(sealed, "canary", _NAME)
    except CannotOpen as e:
        raise WrongKey(_WRONG) from e


_LOST = (
    "The encryption key {path} is not there, and the database has keys that were sealed with it. Put the file back, or "
    "set LLMPROXY_ENCRYPTION_KEY to what it held; no new one was made. Without it the provider keys and tokens of this "
    "database are of no use: to begin anew, name another database."
)
_UNTOLD = (
    "So it does not say whether it has keys that were sealed with the encryption key {path}, which is not there, and "
    "no new one was made. Have the database answer, put the file back, or set LLMPROXY_ENCRYPTION_KEY."
)
_WRONG = (
    "The keys in this database were sealed with another encryption key. Set LLMPROXY_ENCRYPTION_KEY (or the key file "
    "in the state directory) to the one that this database was made with."
)
