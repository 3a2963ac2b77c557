"""The store as the rest of the proxy knows it: Deferreds outside, SQL in its own threads inside."""

from __future__ import annotations

import os
import uuid
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from shutil import rmtree
from threading import Lock, get_ident
from time import time
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from twisted.logger import Logger
from zope.interface import implementer

from llmproxy.coroutines import deferred, within
from llmproxy.errors import Conflict, QuotaExceeded, StoreUnavailable, TokenNotFound, Unauthorized
from llmproxy.interfaces import IBudgetStore, IProjectStore, ITokenStore, ITokenValidator, IWatchable
from llmproxy.model import Advance, Changes, Grant, Page, PageRequest, Project, Token
from llmproxy.sealing import RandomBytes, Sealer, TokenHasher
from llmproxy.store import budgets, canary, changes, engines, health, projects, sqlite_file, tokens
from llmproxy.store.engines import parse_store_url, sqlite_path
from llmproxy.store.errors import database_errors, unavailable
from llmproxy.store.export import Export
from llmproxy.store.migrate import prepare
from llmproxy.store.sqlite_file import is_in_memory, temporary_database
from llmproxy.store.thread_pools import MAX_EXPORTS, StoreThreads, ThreadPools
from llmproxy.token_format import is_well_formed, new_token

T = TypeVar("T")

LOG_INTERVAL_SECONDS = 10.0  # between two words about the same kind of failure
REPORT_SECONDS = 60.0  # for which one part of a report or an export may take
Counts = Mapping[str, tuple[int, float]]

_log = Logger()


@implementer(IProjectStore, ITokenStore, ITokenValidator, IBudgetStore, IWatchable)
class Store:
    """Keeps projects and tokens in SQLite, or in a database server.

    @param url: As C{store.url} of the settings; or C{:memory:}, for as long as this object is there.
    @param sealer: Seals provider keys; C{hasher}: hashes tokens. Only what is in memory can do without: their keys are
        then made for it.
    @param reactor: Twisted's global one if left out. Provides L{IReactorTime} and L{IReactorFromThreads}.
    @param now: Seconds since the epoch.
    @param run: The name of this process's journal, by which what it has of budgets in advance is known; C{""} where it
        has none.
    @param timeout: Seconds after which a call fails with L{StoreUnavailable}.
    @param threads: How many look-ups run at once; L{ThreadPools} has what else does.
    @param waiting: How many calls may wait for a thread, of each kind, before further ones fail at once.
    """

    def __init__(
        self,
        url: str,
        reactor: Any = None,
        *,
        sealer: Sealer | None = None,
        hasher: TokenHasher | None = None,
        random: RandomBytes = os.urandom,
        now: Callable[[], float] = time,
        run: str = "",
        timeout: float = 5.0,
        threads: int = 4,
        waiting: int = 1000,
    ) -> None:
        if reactor is None:
            from twisted.internet import reactor
        self._forget: Callable[[], object] = lambda: None
        if is_in_memory(url):
            url, folder = temporary_database()
            self._forget = weakref.finalize(self, rmtree, folder, ignore_errors=True)
        elif sealer is None or hasher is None:
            raise ValueError("A store that outlives its process needs a sealer and a hasher whose keys are kept.")
        self._reactor = reactor
        self._url = parse_store_url(url)
        self._sealer = sealer or Sealer(random(32))
        self._hasher = hasher or TokenHasher(random(32))
        self._random = random
        self._now = now
        self._run = run
        self._timeout = timeout
        self._listeners: list[Callable[[str], None]] = []
        self._committed: list[Callable[[str], None]] = []
        single = sqlite_path(self._url) is not None
        self._lanes = ThreadPools(reactor, threads, waiting, one_writer=single)
        # SQLite has one writer at a time: waiting here ends as soon as it can, waiting for its lock is looking again.
        self._writing: Lock | None = Lock() if single else None
        self._writers: set[int] = set()  # threads that write, or wait for their turn
        self._engine: Engine | None = None
        self._identity: sqlite_file.FileIdentity | None = None
        self._exports = 0
        self._health = health.Health(self._touched, reactor)
        self._next_word: dict[str, float] = {}

    @deferred
    async def open(self) -> None:
        """Upgrade the database, see that our keys open what it holds, and get ready.

        Fail with L{errors.StartupError} where it must not be used, with L{StoreUnavailable} where it does not answer.
        """
        self._lanes.start()
        try:
            self._engine = await self._lanes.uses.call(self._opened)
        except Exception:
            await self.close()
            raise

    def _opened(self) -> Engine:
        try:
            prepare(
                self._url, partial(canary.check_key, sealer=self._sealer, hasher=self._hasher), timeout=self._timeout
            )
            file = sqlite_path(self._url)
            self._identity = None if file is None else sqlite_file.FileIdentity(file)
            return engines.pooled_engine(self._url, self._lanes.connections, self._timeout)
        except SQLAlchemyError as e:
            reason = str(e.orig).strip() if isinstance(e, DBAPIError) else str(e)
            raise StoreUnavailable(f"The store {self._url!r} could not be opened: {reason}") from e

    @deferred
    async def close(self) -> None:
        """Finish what was begun, within the timeout, and let the database go."""
        try:
            await within(self._timeout, self._reactor, self._lanes.stop(), StoreUnavailable())
        except StoreUnavailable:
            _log.warn("The store's threads were still busy after {seconds} s.", seconds=self._timeout)
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.dispose()
        self._forget()

    @deferred
    async def ping(self) -> None:
        """Fire where the database takes writes; else fail with L{StoreUnavailable}, whose C{reason} says why not."""
        await self._health.check()

    async def _touched(self) -> None:
        def touched() -> None:
            with (
                self._statements(writes=True) as connection,
                engines.lock_timeout(connection, health.LOCK_WAIT_SECONDS),
            ):
                health.touch(connection)

        await self._ask(self._lanes.health, touched, min(self._timeout, health.WRITE_SECONDS))

    # IWatchable

    def watch(self, listener: Callable[[str], None]) -> None:
        self._listeners.append(listener)

    def announce(self, project_id: str) -> None:
        """Tell those who watch of a change that was made elsewhere."""
        _tell(self._listeners, project_id)

    def on_commit(self, listener: Callable[[str], None]) -> None:
        """Call C{listener(project_id)} after every change that was made here, to tell others of it."""
        self._committed.append(listener)

    @deferred
    async def changes(self, epoch: int | None) -> Changes:
        """Fire with what was changed after that epoch, wherever; C{None} for one who has seen nothing yet."""
        return await self._read(partial(self._since, epoch), self._lanes.changes)

    def _since(self, epoch: int | None, connection: Connection) -> Changes:
        self._check_content(connection)
        return changes.since(connection, epoch)

    # ITokenValidator

    @deferred
    async def validate_token(self, token: str) -> Grant | str:
        return await self._read(partial(tokens.grant, hashed=self._hashed(token), now=self._now()))

    @deferred
    async def validate_token_with_tracking(self, token: str) -> Grant | str:
        return await self._ask(self._lanes.uses, partial(self._spent, self._hashed(token), self._now()))

    @deferred
    async def validate_tokens(self, tokens: Sequence[str]) -> list[Grant | Unauthorized]:
        """Fire with what each of these allows, or why nothing, in their order; asked with one statement."""
        return await self._read(partial(self._granted, tokens, self._now()), self._lanes.guesses)

    def _granted(self, asked: Sequence[str], now: float, connection: Connection) -> list[Grant | Unauthorized]:
        hashed = [self._hasher.hash(token) if is_well_formed(token) else "" for token in asked]
        found = tokens.grants(connection, [each for each in hashed if each], now)
        return [found.get(each) or TokenNotFound() for each in hashed]

    def _hashed(self, token: str) -> str:
        if not is_well_formed(token):
            raise TokenNotFound()
        return self._hasher.hash(token)

    def _spent(self, hashed: str, now: float) -> Grant:
        """Look before writing: a token that may not be used at all then takes no lock."""
        with self._statements(writes=True) as connection:
            grant = tokens.grant(connection, hashed, now)
            if grant.project_active and not tokens.spend(connection, hashed, now):
                tokens.grant(connection, hashed, now)
                raise QuotaExceeded()
        return grant

    # IProjectStore

    @deferred
    async def get_api_key_for_project(self, project_id: str, api: str = "") -> str:
        return await self._read(partial(projects.key, project_id=project_id, api=api, sealer=self._sealer))

    @deferred
    async def get_project_active(self, project_id: str) -> bool:
        return await self._read(partial(projects.is_active, project_id=project_id))

    @deferred
    async def list_projects(self) -> list[Project]:
        return await self._read(projects.list_all, self._lanes.lists)

    @deferred
    async def project_page(self, request: PageRequest) -> Page[Project]:
        return await self._read(partial(projects.page, request=request), self._lanes.lists)

    @deferred
    async def create_project(self, project: Project) -> Project:
        named = replace(project, id=project.id or self._new_id())
        return await self._change(
            partial(projects.create, project=named, sealer=self._sealer, now=self._now()), lambda _: named.id
        )

    @deferred
    async def get_project_by_id(self, project_id: str) -> Project:
        return await self._read(partial(projects.get, project_id=project_id), self._lanes.lists)

    @deferred
    async def update_project(self, project: Project) -> Project:
        return await self._change(
            partial(projects.replace, project=project, sealer=self._sealer, now=self._now()), lambda _: project.id
        )

    @deferred
    async def deactivate_project(self, project_id: str) -> Project:
        """Deactivate, whatever else was changed; L{NotFound} where there is none."""
        return await self._change(
            partial(projects.deactivate, project_id=project_id, now=self._now()), lambda _: project_id
        )

    @deferred
    async def delete_project(self, project_id: str) -> None:
        await self._change(partial(projects.remove, project_id=project_id), lambda _: project_id)

    # ITokenStore

    @deferred
    async def create_token(self, token: Token) -> tuple[Token, str]:
        secret, now = new_token(self._random), self._now()
        issued = replace(
            token,
            id=self._new_id(),
            prefix=secret[:10],
            request_count=0,
            created_at=now,
            last_used_at=None,
            deactivated_at=None if token.active else now,
        )
        stored = await self._change(
            partial(tokens.create, token=issued, hashed=self._hasher.hash(secret)), lambda _: issued.project_id
        )
        return stored, secret

    @deferred
    async def get_token(self, token_id: str) -> Token:
        return await self._read(partial(tokens.get, token_id=token_id), self._lanes.lists)

    @deferred
    async def list_tokens(self, project_id: str | None = None) -> list[Token]:
        return await self._read(partial(tokens.list_all, project_id=project_id), self._lanes.lists)

    @deferred
    async def token_page(self, request: PageRequest, project_id: str | None = None) -> Page[Token]:
        return await self._read(partial(tokens.page, request=request, project_id=project_id), self._lanes.lists)

    @deferred
    async def update_token(self, token: Token) -> Token:
        return await self._change(partial(tokens.replace, token=token, now=self._now()), lambda found: found.project_id)

    @deferred
    async def deactivate_token(self, token_id: str) -> Token:
        return await self._change(
            partial(tokens.deactivate, token_id=token_id, now=self._now()), lambda found: found.project_id
        )

    @deferred
    async def revoke_project_tokens(self, project_id: str) -> int:
        return await self._change(partial(tokens.revoke, project_id=project_id, now=self._now()), lambda _: project_id)

    @deferred
    async def count_uses(self, uses: Mapping[str, tuple[int, float]]) -> None:
        await self._count(tokens.add_uses, dict(uses))

    @deferred
    async def count_cache_hits(self, hits: Mapping[str, tuple[int, float]]) -> None:
        await self._count(tokens.add_cache_hits, dict(hits))

    # IBudgetStore

    @deferred
    async def take_budget(self, key: str, least: int, most: int, limit: int, ends: float) -> Advance:
        taking = partial(
            budgets.take, key=key, least=least, most=most, limit=limit, ends=ends, run=self._run, now=self._now()
        )
        try:
            return await self._write(taking)
        except Conflict:  # another process was the first to spend of a budget, at this moment
            return await self._write(taking)

    @deferred
    async def give_budgets(self, amounts: Mapping[str, int]) -> None:
        await self._write(partial(budgets.give_back, amounts=dict(amounts), run=self._run, now=self._now()))

    @deferred
    async def account_budgets(self, amounts: Mapping[str, int]) -> None:
        await self._write(partial(budgets.account, run=self._run, charges=dict(amounts), now=self._now()))

    @deferred
    async def budgets_spent(self, keys: Sequence[str]) -> dict[str, int]:
        return await self._read(partial(budgets.amounts_spent, keys=list(keys)))

    @deferred
    async def forget_budgets(self, before: float) -> int:
        return await self._write(partial(budgets.delete_ended, before=before))

    # For those who keep something of their own in the same database

    @deferred
    async def read(self, work: Callable[[Connection], T]) -> T:
        """Fire with what C{work} reads, in a thread; L{StoreUnavailable} where the database does not answer."""
        return await self._read(work)

    @deferred
    async def report(self, work: Callable[[Connection], T]) -> T:
        """As L{read}, for what may take C{REPORT_SECONDS}; no request waits for the threads that do it."""

        def read() -> T:
            with self._statements() as connection, engines.statement_timeout(connection, REPORT_SECONDS):
                return work(connection)

        return await self._ask(self._lanes.lists, read, REPORT_SECONDS)

    def export(self) -> Export:
        """A result to be read part by part, then closed; L{StoreUnavailable} where enough of them are open."""
        if self._exports >= MAX_EXPORTS:
            raise StoreUnavailable("Enough exports are under way. Try again when one of them is done.", retry_after=10)
        self._exports += 1

        def connect() -> Connection:
            return engines.export_connection(self._ready(), REPORT_SECONDS)

        def closed() -> None:
            self._exports -= 1

        return Export(lambda work: self._ask(self._lanes.lists, work, REPORT_SECONDS), connect, closed)

    @deferred
    async def write(self, work: Callable[[Connection], T]) -> T:
        """The same in one transaction, of which either everything is kept or nothing."""

        def written() -> T:
            with self._transaction() as connection:
                return work(connection)

        return await self._ask(self._lanes.uses, written)

    # How all of them ask

    def _new_id(self) -> str:
        return uuid.UUID(bytes=self._random(16), version=4).hex

    async def _count(self, work: Callable[[Connection, Counts], None], counts: Counts) -> None:
        def add() -> None:
            with self._transaction() as connection:
                work(connection, counts)

        await self._ask(self._lanes.uses, add)

    async def _read(self, work: Callable[[Connection], T], threads: StoreThreads | None = None) -> T:
        def read() -> T:
            with self._statements() as connection:
                return work(connection)

        return await self._ask(threads or self._lanes.look_ups, read)

    async def _write(self, work: Callable[[Connection], T]) -> T:
        """Do it in one transaction, of which nobody need hear."""

        def write() -> T:
            with self._transaction() as connection:
                return work(connection)

        return await self._ask(self._lanes.uses, write)

    async def _change(self, work: Callable[[Connection], T], project_of: Callable[[T], str]) -> T:
        """Do it in one transaction, and say so from its thread: listeners hear of it even if the caller gave up."""

        def change() -> T:
            with self._transaction() as connection:
                result = work(connection)
                changes.record(connection, project_of(result))
            self._reactor.callFromThread(self._changed, project_of(result))
            return result

        return await self._ask(self._lanes.management, change)

    async def _ask(self, threads: StoreThreads, work: Callable[[], T], timeout: float | None = None) -> T:
        doing = self._lanes.doing[threads]
        late = unavailable(doing, "no answer")

        def asked() -> T:
            with database_errors(doing):
                return work()

        try:
            return await within(timeout or self._timeout, self._reactor, threads.call(asked), late)
        except StoreUnavailable as e:
            error = unavailable(doing, "locked") if e is late and self._waits_for_lock(threads) else e
            self._say(error)
            raise error from e.__cause__

    def _waits_for_lock(self, threads: StoreThreads) -> bool:
        """Whether it was to write, and some of us are still waiting to: for each other, and so for the file's lock."""
        reading = (self._lanes.look_ups, self._lanes.guesses, self._lanes.lists, self._lanes.changes)
        return bool(self._writers) and threads not in reading

    def _say(self, error: StoreUnavailable) -> None:
        """What clients are told is said to the operator too, but not each time."""
        now = self._reactor.seconds()
        if self._next_word.get(error.reason, now) <= now:
            self._next_word[error.reason] = now + LOG_INTERVAL_SECONDS
            _log.error("{message}", message=error.message)

    @contextmanager
    def _statements(self, *, writes: bool = False) -> Iterator[Connection]:
        with self._turn(writes), engines.autocommit(self._ready()).connect() as connection:
            yield connection
        if writes:
            self._check_file()

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with self._turn(True), self._ready().begin() as connection:
            yield connection
        self._check_file()  # what was written into a file that nobody will find is not written

    @contextmanager
    def _turn(self, writes: bool) -> Iterator[None]:
        """Be the only one of this process that writes, where there can be only one."""
        lock = self._writing if writes else None
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

    def _ready(self) -> Engine:
        if self._engine is None:
            raise StoreUnavailable()
        self._check_file()
        return self._engine

    def _check_file(self) -> None:
        """L{StoreUnavailable} where a SQLite file is no longer the one that was opened."""
        if self._identity is not None and (problem := self._identity.problem()):
            raise unavailable("Nothing can be read or stored", problem)

    def _check_content(self, connection: Connection) -> None:
        """Likewise of what is in it; asked by those who look at it every second."""
        if self._identity is not None and (problem := sqlite_file.content_problem(connection)):
            raise unavailable("Nothing can be relied on", problem)

    def _changed(self, project_id: str) -> None:
        _tell(self._listeners, project_id)
        _tell(self._committed, project_id)


def _tell(listeners: Iterable[Callable[[str], None]], project_id: str) -> None:
    for listener in listeners:
        try:
            listener(project_id)
        except Exception:
            _log.failure("A listener to the store's changes failed.")
