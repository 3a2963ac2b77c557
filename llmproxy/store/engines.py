"""From the store's URL to connections, set up so that none waits for ever."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, NullPool, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from llmproxy.base.url_masking import MASK, mask_url, mask_urls
from llmproxy.store.errors import DriverMissing, InvalidStoreURL

_DRIVERS = {
    "sqlite": "sqlite+pysqlite",
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
}
_PASSWORD_OPTIONS = ("password", "sslpassword")
SQLITE_BUSY_SECONDS = 4.0  # seconds; less than a call waits for, so that it is told why


def parse_store_url(url: str) -> URL:
    """The URL with its driver named and a SQLite file's path absolute; L{InvalidStoreURL} where it is not supported."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # The URL is not repeated: it may hold a password.
        raise InvalidStoreURL("store.url is not a database URL (try sqlite:///data/llmproxy.db).") from None
    driver = _DRIVERS.get(parsed.get_backend_name())
    if driver is None or ("+" in parsed.drivername and parsed.drivername != driver):
        raise InvalidStoreURL(f"store.url: {parsed.drivername} is not supported (sqlite and postgresql+psycopg are).")
    parsed = parsed.set(drivername=driver)
    return _absolute(parsed) if driver == _DRIVERS["sqlite"] else parsed


def _absolute(url: URL) -> URL:
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise InvalidStoreURL("store.url must name a file for SQLite (try sqlite:///data/llmproxy.db).")
    return url.set(database=os.path.abspath(url.database))


def sqlite_path(url: URL) -> Path | None:
    """The SQLite file behind the URL; C{None} for a database server."""
    return Path(url.database or "") if url.get_backend_name() == "sqlite" else None


def url_passwords(url: URL) -> list[str]:
    """Those that it holds: before the host, and among the options, where libpq takes them too."""
    options = [each for name in _PASSWORD_OPTIONS for each in url.normalized_query.get(name, ())]
    return [each for each in (url.password, *options) if each]


def opening_failure(url: URL, error: SQLAlchemyError) -> str:
    """That it could not be opened, and what the driver says of it; no password is repeated."""
    reason = " ".join(str(error.orig if isinstance(error, DBAPIError) else error).split()).rstrip(".")
    for password in url_passwords(url):
        reason = reason.replace(password, MASK)
    place = mask_url(url.render_as_string(hide_password=False))
    return f"The store {place} could not be opened: {mask_urls(reason)}."


def pooled_engine(url: URL, size: int, timeout: float) -> Engine:
    """A pool of C{size} connections, each statement bounded by C{timeout} seconds where the database can do that."""
    return _engine(
        url,
        timeout,
        _arguments(url, timeout, bounded=True),
        pool_size=size,
        max_overflow=0,
        pool_timeout=timeout,
        pool_pre_ping=url.get_backend_name() != "sqlite",
    )


def upgrade_engine(url: URL, timeout: float) -> Engine:
    """Connections for a change of the schema: statements may take their time.

    SQLite does not check foreign keys here: rebuilding a table would otherwise delete the rows that refer to it.
    """
    return _engine(url, timeout, _arguments(url, timeout, bounded=False), foreign_keys=False, poolclass=NullPool)


def autocommit(engine: Engine) -> Engine:
    """The same pool, each statement a transaction of its own: for reads and for single statements."""
    return engine.execution_options(isolation_level="AUTOCOMMIT")


@contextmanager
def statement_timeout(connection: Connection, seconds: float) -> Iterator[None]:
    """Let the statements of this connection take so long, where the database has a limit of its own."""
    if connection.dialect.name != "postgresql":
        yield
        return
    connection.exec_driver_sql(f"SET statement_timeout = {round(seconds * 1000)}")
    try:
        yield
    finally:
        connection.exec_driver_sql("RESET statement_timeout")


@contextmanager
def lock_timeout(connection: Connection, seconds: float) -> Iterator[None]:
    """Let the statements of this connection wait so long for another process's, where they would wait longer."""
    if connection.dialect.name != "sqlite":
        yield
        return
    connection.exec_driver_sql(f"PRAGMA busy_timeout = {round(seconds * 1000)}").close()
    try:
        yield
    finally:
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {round(SQLITE_BUSY_SECONDS * 1000)}").close()


def export_connection(engine: Engine, seconds: float) -> Connection:
    """A connection for one long result, each part of which may take so long."""
    if engine.dialect.name != "postgresql":
        return autocommit(engine).connect()
    connection = engine.connect()  # a cursor at the server lives in a transaction
    connection.exec_driver_sql(f"SET LOCAL statement_timeout = {round(seconds * 1000)}")
    return connection


def _engine(url: URL, timeout: float, arguments: dict[str, Any], foreign_keys: bool = True, **more: Any) -> Engine:
    try:
        engine = create_engine(url, connect_args=arguments, hide_parameters=True, **more)
    except ImportError as e:
        driver = e.name or url.get_driver_name()
        raise DriverMissing(f"store.url needs the module {driver}. Run: pip install 'llmproxy[postgres]'") from e
    except (ArgumentError, ValueError) as e:
        raise InvalidStoreURL(f"store.url has an option of which no use can be made: {', '.join(url.query)}.") from e
    if url.get_backend_name() == "sqlite":
        _prepare_sqlite(engine, foreign_keys)
    return engine


def _arguments(url: URL, timeout: float, *, bounded: bool) -> dict[str, Any]:
    """What the driver is told; an operator's own word in the URL goes first."""
    backend, seconds = url.get_backend_name(), max(1, round(timeout))
    if backend == "sqlite":
        return {"timeout": SQLITE_BUSY_SECONDS}
    wanted: dict[str, Any] = {
        "connect_timeout": max(2, seconds),
        "tcp_user_timeout": seconds * 1000,
        "application_name": "llmproxy",
    }
    if bounded:
        wanted["options"] = f"-c statement_timeout={seconds * 1000}"
    return {name: value for name, value in wanted.items() if name not in url.query}


def _prepare_sqlite(engine: Engine, foreign_keys: bool) -> None:
    pragmas = ("journal_mode=WAL", f"foreign_keys={'ON' if foreign_keys else 'OFF'}")

    @event.listens_for(engine, "connect")
    def connected(connection: Any, record: Any) -> None:
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        # Writers queue at the start: one that began as a reader would be refused without waiting when it first writes.
        if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
