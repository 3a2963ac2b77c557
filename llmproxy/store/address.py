"""Where the store is: its URL, made exact."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import mkdtemp

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from llmproxy.store.refusals import BadAddress

_DRIVERS = {
    "sqlite": "sqlite+pysqlite",
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
}


def exact(url: str) -> URL:
    """The URL with its driver named and a SQLite file's path made absolute; L{BadAddress} where it is none of ours."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # The URL is not repeated: it may hold a password.
        raise BadAddress("store.url is not a database URL (try sqlite:///data/llmproxy.db).") from None
    driver = _DRIVERS.get(parsed.get_backend_name())
    if driver is None or ("+" in parsed.drivername and parsed.drivername != driver):
        raise BadAddress(f"store.url: {parsed.drivername} is not supported (sqlite and postgresql+psycopg are).")
    parsed = parsed.set(drivername=driver)
    return _absolute(parsed) if driver == _DRIVERS["sqlite"] else parsed


def is_memory(url: str) -> bool:
    """Whether it names SQLite's database in memory, which ends with whoever opened it."""
    return url in (":memory:", "sqlite://", "sqlite:///:memory:")


def in_memory() -> tuple[str, Path]:
    """A new database that nobody else knows, and its folder, which whoever asked for it removes.

    It is a file where the system keeps files in memory, or in its folder for temporary ones: the threads of a store
    cannot share what SQLite itself keeps in memory without waiting for each other.
    """
    shared = "/dev/shm"
    folder = Path(mkdtemp(prefix="llmproxy-", dir=shared if os.access(shared, os.W_OK) else None))
    return f"sqlite:///{folder}/llmproxy.db", folder


def _absolute(url: URL) -> URL:
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise BadAddress("store.url must name a file for SQLite (try sqlite:///data/llmproxy.db).")
    return url.set(database=os.path.abspath(url.database))


def file_of(url: URL) -> Path | None:
    """The SQLite file behind the URL; C{None} for a database server."""
    return Path(url.database or "") if url.get_backend_name() == "sqlite" else None


def make_file(path: Path) -> None:
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
        raise BadAddress(f"The database {path} cannot be made: {e.strerror}.") from e
