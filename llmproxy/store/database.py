"""A database and the threads that speak to it: every call ends in time, and its failures say what could not be done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock, get_ident
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from llmproxy.base.coroutines import within
from llmproxy.errors import StoreUnavailable
from llmproxy.store import engines, health
from llmproxy.store.errors import database_errors, unavailable
from llmproxy.store.export import Export
from llmproxy.store.migrate import prepare
from llmproxy.store.sqlite_file import FileIdentity, content_problem
from llmproxy.store.thread_pools import MAX_EXPORTS, StoreThreads, ThreadPools

T = TypeVar("T")

LOG_INTERVAL_SECONDS = 10.0  # between two lines about the same kind of failure
REPORT_SECONDS = 60.0  # for which one part of a report or an export may take

_log = Logger()


class Database:
    """Runs SQL in threads of its own, each kind of work in its own pool.

    Work is a function that takes a connection and blocks. Whatever is asked for fails with L{StoreUnavailable} where
    the database does not answer in time, is locked, read-only, full, or no longer the file that was opened.

    @ivar url: Where it is.
    @ivar pools: The threads for each kind of work.
    """

    def __init__(self, url: URL, reactor: Any, *, timeout: float, threads: int, waiting: int) -> None:
        """
        @param reactor: Provides L{IReactorTime} and L{IReactorFromThreads}.
        @param timeout: Seconds after which a call fails.
        @param threads: For lookups; L{ThreadPools} has what else does.
        @param waiting: How many calls may wait for a thread, of each kind.
        """
        self.url = url
        single = engines.sqlite_path(url) is not None
        self.pools = ThreadPools(reactor, threads, waiting, one_writer=single)
        self._reactor = reactor
        self._timeout = timeout
        # SQLite has one writer at a time: waiting here ends as soon as it can, waiting for its lock is looking again.
        self._write_lock: Lock | None = Lock() if single else None
        self._writers: set[int] = set()  # threads that write, or wait for their turn
        self._engine: Engine | None = None
        self._identity: FileIdentity | None = None
        self._exports = 0
        self._health = health.Health(self._touch, reactor)
        self._next_line: dict[str, float] = {}

    async def open(self, check: Callable[[Connection], None]) -> None:
        """Bring the schema up to date, C{check} what is there, and get ready.

        L{errors.StartupError} where it must not be used, L{StoreUnavailable} where it does not answer.
        """
        self.pools.start()
        try:
            self._engine = await self.pools.uses.call(lambda: self._prepare(check))
        except Exception:
            await self.close()
            raise

    def _prepare(self, check: Callable[[Connection], None]) -> Engine:
        try:
            prepare(self.url, check, timeout=self._timeout)
            file = engines.sqlite_path(self.url)
            self._identity = None if file is None else FileIdentity(file)
            return engines.pooled_engine(self.url, self.pools.connections, self._timeout)
        except SQLAlchemyError as e:
            raise StoreUnavailable(engines.opening_failure(self.url, e)) from e

    async def close(self) -> None:
        """Finish what was begun, within the timeout, and let the database go."""
        try:
            await within(self._timeout, self._reactor, self.pools.stop(), StoreUnavailable())
        except StoreUnavailable:
            _log.warn("The store's threads were still busy after {seconds} s.", seconds=self._timeout)
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.dispose()

    def ping(self) -> Deferred[None]:
        """Fire where the database takes writes; else fail with L{StoreUnavailable}, whose C{reason} says why not."""
        return self._health.check()

    async def _touch(self) -> None:
        def touch() -> None:
            with self.statements(writes=True) as connection, engines.lock_timeout(connection, health.LOCK_WAIT_SECONDS):
                health.touch(connection)

        await self.run(self.pools.health, touch, min(self._timeout, health.WRITE_SECONDS))

    async def read(self, work: Callable[[Connection], T], threads: StoreThreads | None = None) -> T:
        """What C{work} reads; in the threads for lookups if no others are named."""

        def read() -> T:
            with self.statements() as connection:
                return work(connection)

        return await self.run(threads or self.pools.lookups, read)

    async def report(self, work: Callable[[Connection], T]) -> T:
        """As L{read}, for what may take C{REPORT_SECONDS}; no request waits for the threads that do it."""

        def read() -> T:
            with self.statements() as connection, engines.statement_timeout(connection, REPORT_SECONDS):
                return work(connection)

        return await self.run(self.pools.lists, read, REPORT_SECONDS)

    def export(self) -> Export:
        """A result to be read part by part, then closed; L{StoreUnavailable} where enough of them are open."""
        if self._exports >= MAX_EXPORTS:
            raise StoreUnavailable("Enough exports are under way. Try again when one of them is done.", retry_after=10)
        self._exports += 1

        def connect() -> Connection:
            return engines.export_connection(self._open_engine(), REPORT_SECONDS)

        def closed() -> None:
            self._exports -= 1

        return Export(lambda work: self.run(self.pools.lists, work, REPORT_SECONDS), connect, closed)

    async def write(self, work: Callable[[Connection], T], threads: StoreThreads | None = None) -> T:
        """Do C{work} in one transaction, of which either everything is kept or nothing."""

        def write() -> T:
            with self.transaction() as connection:
                return work(connection)

        return await self.run(threads or self.pools.uses, write)

    async def run(self, threads: StoreThreads, work: Callable[[], T], timeout: float | None = None) -> T:
        """Do what blocks in one of these threads.

        @param timeout: Seconds; the database's own if left out.
        """
        doing = self.pools.doing[threads]
        late = unavailable(doing, "no answer")

        def attempt() -> T:
            with database_errors(doing):
                return work()

        try:
            return await within(timeout or self._timeout, self._reactor, threads.call(attempt), late)
        except StoreUnavailable as e:
            error = unavailable(doing, "locked") if e is late and self._waits_for_lock(threads) else e
            if threads is not self.pools.health:  # whoever looks how the store is says it once
                self._log_seldom(error)
            raise error from e.__cause__

    def _waits_for_lock(self, threads: StoreThreads) -> bool:
        """Whether it was to write, and some of us are still waiting to: for each other, and so for the file's lock."""
        reading = (self.pools.lookups, self.pools.unknown_tokens, self.pools.lists, self.pools.changes)
        return bool(self._writers) and threads not in reading

    def _log_seldom(self, error: StoreUnavailable) -> None:
        """What clients are told the operator reads too, but not each time."""
        now = self._reactor.seconds()
        if self._next_line.get(error.reason, now) <= now:
            self._next_line[error.reason] = now + LOG_INTERVAL_SECONDS
            _log.error("{message}", message=error.message)

    @contextmanager
    def statements(self, *, writes: bool = False) -> Iterator[Connection]:
        """A connection on which each statement is a transaction of its own. Blocks."""
        with self._turn(writes), engines.autocommit(self._open_engine()).connect() as connection:
            yield connection
        if writes:
            self._check_file()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A connection for one transaction. Blocks."""
        with self._turn(True), self._open_engine().begin() as connection:
            yield connection
        self._check_file()  # what was written into a file that nobody will find is not written

    @contextmanager
    def _turn(self, writes: bool) -> Iterator[None]:
        """Be the only one of this process that writes, where there can be only one."""
        lock = self._write_lock if writes else None
        if lock is None:
            yield
            return
        self._writers.add(get_ident())
        try:
            if not lock.acquire(timeout=self._timeout):
                raise unavailable("Nothing could be stored", "locked")
            try:
                yield
            finally:
                lock.release()
        finally:
            self._writers.discard(get_ident())

    def _open_engine(self) -> Engine:
        if self._engine is None:
            raise StoreUnavailable()
        self._check_file()
        return self._engine

    def _check_file(self) -> None:
        """L{StoreUnavailable} where a SQLite file is no longer the one that was opened."""
        if self._identity is not None and (problem := self._identity.problem()):
            raise unavailable("Nothing can be read or stored", problem)

    def check_content(self, connection: Connection) -> None:
        """Likewise of what is in it; for those who look at it every second. Blocks."""
        if self._identity is not None and (problem := content_problem(connection)):
            raise unavailable("Nothing can be relied on", problem)
