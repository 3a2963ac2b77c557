"""Brings the database to the schema that this code speaks, once, whoever starts at the same time."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path

from sqlalchemy import Connection, column, inspect, select, table, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import OperationalError

from llmproxy.store import baseline
from llmproxy.store.engines import sqlite_path, upgrade_engine
from llmproxy.store.errors import DatabaseTooNew, InvalidStoreURL, UpgradeInProgress
from llmproxy.store.sqlite_file import VERSION_TABLE, create_file, mark_as_ours, refuse_foreign

SCRIPTS = Path(__file__).parent / "migrations"
_LOCK_POLL_SECONDS = 0.05
_ADVISORY_LOCK_ID = 0x6C6C6D70726F7879  # "llmproxy"
_IN_PROGRESS = (
    "Another process has been upgrading this database for {:g} s. Wait until it has finished, then try again."
)

# Alembic installs the running environment in a module of its own, so two upgrades in one process must take turns.
_one_alembic = threading.Lock()


def prepare(
    url: URL, check: Callable[[Connection], None], *, wait: float = 30.0, timeout: float = 5.0, scripts: Path = SCRIPTS
) -> None:
    """Upgrade the database behind C{url} and then C{check} it, all in one transaction and under a lock.

    Blocks, for the lock at most C{wait} seconds. An older SQLite file is copied first.
    L{errors.StartupError} where this database must not be used.
    """
    file = sqlite_path(url)
    if file is not None:
        create_file(file)
        refuse_foreign(file)
    with file_lock(file, wait) if file is not None else nullcontext(), _connected(url, timeout) as connection:
        server_lock(connection, wait)
        if file is not None:
            mark_as_ours(connection, file)
        _bring_to_head(connection, file, scripts)
        check(connection)


@contextmanager
def _connected(url: URL, timeout: float) -> Iterator[Connection]:
    engine = upgrade_engine(url, timeout)
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def _bring_to_head(connection: Connection, file: Path | None, scripts: Path) -> None:
    stored = stored_revisions(connection)
    kept = file if stored else None
    if file is not None and (scripts / baseline.NAME).exists() and baseline.is_empty(connection):
        baseline.create(connection, scripts)
        stored = stored_revisions(connection)
    if stored != (newest_revision(scripts),):
        _upgrade(connection, kept, scripts, stored)


def stored_revisions(connection: Connection) -> tuple[str, ...]:
    """What Alembic has noted in the database, read without it."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return ()
    return tuple(connection.scalars(select(column("version_num")).select_from(table(VERSION_TABLE))))


def newest_revision(scripts: Path) -> str:
    """The revision in the name of the last script: C{v0009_pending_results.py} is C{0009}."""
    return max((path.name[1:].partition("_")[0] for path in (scripts / "versions").glob("v*_*.py")), default="")


def _upgrade(connection: Connection, kept: Path | None, scripts: Path, stored: tuple[str, ...]) -> None:
    """Run what is missing; C{kept} is a SQLite file that is copied before."""
    # Alembic takes 10 MB and a seventh of the time to start, and most starts find nothing to upgrade.
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(scripts).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    known = ScriptDirectory.from_config(config)
    head = known.get_current_head() or ""
    if unknown := set(stored) - {script.revision for script in known.walk_revisions()}:
        raise DatabaseTooNew(
            f"The database is at revision {', '.join(sorted(unknown))}, which this version of llmproxy does not know "
            f"(it knows up to {head}). Run the newer llmproxy, or restore the copy made before the upgrade."
        )
    if stored == (head,):
        return
    if kept is not None:
        _copy_before_upgrade(kept, head)
    with _one_alembic:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    on_sqlite = connection.dialect.name == "sqlite"
    if on_sqlite and connection.exec_driver_sql("PRAGMA foreign_key_check").first() is not None:
        raise RuntimeError(f"The upgrade to {head} left rows that refer to nothing; nothing was changed.")


def _copy_before_upgrade(file: Path, revision: str) -> None:
    """Copy the database to C{<file>.before-<revision>}, mode 0600, whole or not at all."""
    kept = file.with_name(f"{file.name}.before-{revision}")
    draft = kept.with_name(kept.name + ".part")
    draft.unlink(missing_ok=True)
    os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(draft)) as copy:
        source.backup(copy)
    os.replace(draft, kept)


@contextmanager
def file_lock(database: Path, wait: float) -> Iterator[None]:
    """Hold C{<database>.lock}, waiting at most C{wait} seconds; blocks, so call it from a thread.

    The file is left where it is: removing it would let two processes lock two files of one name.
    """
    path = database.with_name(database.name + ".lock")
    try:
        opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as e:
        raise InvalidStoreURL(f"The lock {path} cannot be opened: {e.strerror}.") from e
    try:
        for _ in range(int(wait / _LOCK_POLL_SECONDS)):
            if _try_lock(opened):
                break
            time.sleep(_LOCK_POLL_SECONDS)
        else:
            if not _try_lock(opened):
                raise UpgradeInProgress(_IN_PROGRESS.format(wait))
        yield
    finally:
        os.close(opened)


def _try_lock(opened: int) -> bool:
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
            connection.execute(text("SELECT pg_advisory_xact_lock(:name)"), {"name": _ADVISORY_LOCK_ID})
        except OperationalError as e:
            if getattr(e.orig, "sqlstate", "") != "55P03":
                raise
            raise UpgradeInProgress(_IN_PROGRESS.format(wait)) from e
        connection.execute(text("SET LOCAL lock_timeout = 0"))
