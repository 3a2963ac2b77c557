"""Brings the database to the schema that this code speaks, once, whoever starts at the same time."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.engine import URL

from llmproxy.store import identity
from llmproxy.store.address import file_of, make_file
from llmproxy.store.connecting import upgrading
from llmproxy.store.locks import file_lock, server_lock
from llmproxy.store.refusals import DatabaseTooNew

SCRIPTS = Path(__file__).parent / "migrations"
VERSION_TABLE = "llmproxy_schema"

# Alembic installs the running environment in a module of its own, so two upgrades in one process must take turns.
_one_alembic = threading.Lock()


def prepare(
    url: URL, check: Callable[[Connection], None], *, wait: float = 30.0, timeout: float = 5.0, scripts: Path = SCRIPTS
) -> None:
    """Upgrade the database behind C{url} and then C{check} it, all in one transaction and under a lock.

    Blocks, for the lock at most C{wait} seconds. An older SQLite file is copied first.
    L{refusals.CannotStart} where this database must not be used.
    """
    file = file_of(url)
    if file is not None:
        make_file(file)
    with file_lock(file, wait) if file is not None else nullcontext(), _connected(url, timeout) as connection:
        server_lock(connection, wait)
        if file is not None:
            identity.mark(connection)
        _bring_to_head(connection, file, scripts)
        check(connection)


@contextmanager
def _connected(url: URL, timeout: float) -> Iterator[Connection]:
    engine = upgrading(url, timeout)
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def _bring_to_head(connection: Connection, file: Path | None, scripts: Path) -> None:
    config = _config(scripts)
    known = ScriptDirectory.from_config(config)
    head = known.get_current_head() or ""
    found = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}).get_current_heads()
    if unknown := set(found) - {script.revision for script in known.walk_revisions()}:
        raise DatabaseTooNew(
            f"The database is at revision {', '.join(sorted(unknown))}, which this version of llmproxy does not know "
            f"(it knows up to {head}). Run the newer llmproxy, or restore the copy made before the upgrade."
        )
    if found == (head,):
        return
    if file is not None and found:
        _keep_copy(file, head)
    with _one_alembic:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    if file is not None and connection.exec_driver_sql("PRAGMA foreign_key_check").first() is not None:
        raise RuntimeError(f"The upgrade to {head} left rows that refer to nothing; nothing was changed.")


def _config(scripts: Path) -> Config:
    config = Config()
    config.set_main_option("script_location", str(scripts).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _keep_copy(file: Path, revision: str) -> None:
    """Copy the database to C{<file>.before-<revision>}, mode 0600, whole or not at all."""
    kept = file.with_name(f"{file.name}.before-{revision}")
    draft = kept.with_name(kept.name + ".part")
    draft.unlink(missing_ok=True)
    os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(draft)) as copy:
        source.backup(copy)
    os.replace(draft, kept)
