"""The file of a SQLite database: made, marked as ours, and whether it is still the one that was opened.

SQLite goes on with a file that has been removed or replaced: what it writes there nobody will ever find. What is
written into the header of the database as its application id (SQLite, "Database File Format", section 1.3.17) tells it
from others that somebody has copied over it.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from sqlalchemy import Connection

from llmproxy.store.errors import InvalidStoreURL

APPLICATION_ID = 0x4C4C4D50  # "LLMP"
VERSION_TABLE = "llmproxy_schema"  # every database of ours has it; those of our first versions have no application id

_FOREIGN = "store.url names {}, a database of another program, which is left as it is. Name a file of its own."
_TABLES = "SELECT count(*) FROM sqlite_master WHERE name NOT LIKE 'sqlite!_%' ESCAPE '!'"
_OF_VERSIONS = f"SELECT count(*) FROM sqlite_master WHERE name = '{VERSION_TABLE}'"


def refuse_foreign(file: Path) -> None:
    """L{InvalidStoreURL} where this file is there and is another program's database, in which nothing is changed: our
    engines would change the mode of its journal. Blocks."""
    if not file.exists():
        return
    try:
        with closing(sqlite3.connect(file)) as opened:
            is_foreign = _is_foreign(lambda statement: opened.execute(statement).fetchone()[0])
    except sqlite3.Error:
        return  # whoever opens it says why that cannot be
    if is_foreign:
        raise InvalidStoreURL(_FOREIGN.format(file))


def mark_as_ours(connection: Connection, file: Path) -> None:
    """Call the database ours; L{InvalidStoreURL} where it is another program's. Blocks."""
    if _is_foreign(lambda statement: connection.exec_driver_sql(statement).scalar()):
        raise InvalidStoreURL(_FOREIGN.format(file))
    if not connection.exec_driver_sql("PRAGMA application_id").scalar():
        connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")


def _is_foreign(scalar: Callable[[str], Any]) -> bool:
    """Whether a database is marked as another program's, or has something in it and nothing that shows it to be ours.

    @param scalar: Gives the one value that a statement brings.
    """
    marked = scalar("PRAGMA application_id")
    if marked:
        return bool(marked != APPLICATION_ID)
    return scalar(_TABLES) > 0 and not scalar(_OF_VERSIONS)


class FileIdentity:
    """The file that was opened. What it does blocks, but for no longer than a look at a file's status."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._opened = os.stat(path)

    def problem(self) -> str:
        """C{""} while the name still leads to it; else what has become of it, in a few words."""
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            return "file was removed"
        except OSError:
            return "file cannot be opened"
        return "" if os.path.samestat(found, self._opened) else "file was replaced"


def content_problem(connection: Connection) -> str:
    """As L{FileIdentity.problem}, of what is in it."""
    found = connection.exec_driver_sql("PRAGMA application_id").scalar()
    return "" if found == APPLICATION_ID else "file is another database"


def is_in_memory(url: str) -> bool:
    """Whether it names SQLite's database in memory, which ends with whoever opened it."""
    return url in (":memory:", "sqlite://", "sqlite:///:memory:")


def temporary_database() -> tuple[str, Path]:
    """A new database that nobody else knows, and its folder, which whoever asked for it removes.

    It is a file where the system keeps files in memory, or in its folder for temporary ones: the threads of a store
    cannot share what SQLite itself keeps in memory without waiting for each other.
    """
    shared = "/dev/shm"
    folder = Path(mkdtemp(prefix="llmproxy-", dir=shared if os.access(shared, os.W_OK) else None))
    return f"sqlite:///{folder}/llmproxy.db", folder


def create_file(path: Path) -> None:
    """Make sure that the file is there: a new one has mode 0600, in a new directory with mode 0700.

    SQLite gives the files that it puts beside the database the database's own mode. An existing file is not
    opened here: closing it would drop the locks that this process holds on it.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        pass
    except OSError as e:
        raise InvalidStoreURL(f"The database {path} cannot be made: {e.strerror}.") from e
