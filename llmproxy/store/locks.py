"""One process at a time changes the schema."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from llmproxy.store.refusals import BadAddress, Busy

_PAUSE = 0.05
_ADVISORY = 0x6C6C6D70726F7879  # "llmproxy"
_BUSY = "Another process has been upgrading this database for {:g} s. Wait until it has finished, then try again."


@contextmanager
def file_lock(database: Path, wait: float) -> Iterator[None]:
    """Hold C{<database>.lock}, waiting at most C{wait} seconds; blocks, so call it from a thread.

    The file is left where it is: removing it would let two processes lock two files of one name.
    """
    path = database.with_name(database.name + ".lock")
    try:
        opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as e:
        raise BadAddress(f"The lock {path} cannot be opened: {e.strerror}.") from e
    try:
        for _ in range(int(wait / _PAUSE)):
            if _taken(opened):
                break
            time.sleep(_PAUSE)
        else:
            if not _taken(opened):
                raise Busy(_BUSY.format(wait))
        yield
    finally:
        os.close(opened)


def _taken(opened: int) -> bool:
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def server_lock(connection: Connection, wait: float) -> None:
    """Take a database server's own lock until this transaction ends."""
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SET LOCAL lock_timeout = {int(wait * 1000)}"))
        try:
            connection.execute(text("SELECT pg_advisory_xact_lock(:name)"), {"name": _ADVISORY})
        except OperationalError as e:
            if getattr(e.orig, "sqlstate", "") != "55P03":
                raise
            raise Busy(_BUSY.format(wait)) from e
        connection.execute(text("SET LOCAL lock_timeout = 0"))
