"""The store as the rest of the proxy knows it: Deferreds outside, SQL in its own threads inside."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from twisted.logger import Logger
from zope.interface import implementer

from llmproxy.aio import deferred, within
from llmproxy.errors import QuotaExceeded, StoreUnavailable, TokenNotFound
from llmproxy.interfaces import IProjectStore, ITokenStore, ITokenValidator, IWatchable
from llmproxy.model import Grant, Project, Token
from llmproxy.sealing import RandomBytes, Sealer, TokenHasher, new_token, well_formed
from llmproxy.store import canary, connecting, projects, tokens
from llmproxy.store.address import exact, file_of
from llmproxy.store.failures import translated
from llmproxy.store.migrate import prepare
from llmproxy.store.threads import Threads

T = TypeVar("T")


@implementer(IProjectStore, ITokenStore, ITokenValidator, IWatchable)
class Store:
    """Keeps projects and tokens in SQLite, or in a database server.

    @param reactor: Provides L{IReactorTime} and L{IReactorFromThreads}.
    @param now: Seconds since the epoch.
    @param timeout: Seconds after which a call fails with L{StoreUnavailable}.
    @param threads: How many statements run at once.
    @param waiting: How many calls may wait for a thread before further ones fail at once.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        url: str,
        *,
        sealer: Sealer,
        hasher: TokenHasher,
        random: RandomBytes,
        now: Callable[[], float],
        timeout: float = 5.0,
        threads: int = 4,
        waiting: int = 1000,
    ) -> None:
        self._reactor = reactor
        self._url = exact(url)
        self._sealer = sealer
        self._hasher = hasher
        self._random = random
        self._now = now
        self._timeout = timeout
        self._listeners: list[Callable[[str], None]] = []
        self._reads = Threads(reactor, "store", threads, waiting)
        # SQLite has one writer at a time: queueing here is fair, waiting for its lock is not, and readers go on.
        single = file_of(self._url) is not None
        self._writes = Threads(reactor, "store writing", 1, waiting) if single else self._reads
        self._connections = threads + single
        self._engine: Engine | None = None

    @deferred
    async def open(self) -> None:
        """Upgrade the database, see that our keys open what it holds, and get ready.

        Fail with L{refusals.CannotStart} where it must not be used, with L{StoreUnavailable} where it does not answer.
        """
        for threads in {self._reads, self._writes}:
            threads.start()
        try:
            self._engine = await self._writes.run(self._opened)
        except Exception:
            await self.close()
            raise

    def _opened(self) -> Engine:
        try:
            prepare(self._url, partial(canary.check, sealer=self._sealer, hasher=self._hasher), timeout=self._timeout)
            return connecting.pool(self._url, self._connections, self._timeout)
        except SQLAlchemyError as e:
            reason = str(e.orig).strip() if isinstance(e, DBAPIError) else str(e)
            raise StoreUnavailable(f"The store {self._url!r} could not be opened: {reason}") from e

    @deferred
    async def close(self) -> None:
        """Finish what was begun, within the timeout, and let the database go."""
        for threads in {self._reads, self._writes}:
            try:
                await within(self._timeout, self._reactor, threads.stop(), StoreUnavailable())
            except StoreUnavailable:
                self._log.warn("The store's threads were still busy after {seconds} s.", seconds=self._timeout)
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.dispose()

    @deferred
    async def ping(self) -> None:
        """Fire when the database has answered; fail with L{StoreUnavailable} where it does not."""
        await self._read(lambda connection: connection.scalar(text("SELECT 1")))

    # IWatchable

    def watch(self, listener: Callable[[str], None]) -> None:
        self._listeners.append(listener)

    # ITokenValidator

    @deferred
    async def validate_token(self, token: str) -> Grant | str:
        return await self._read(partial(tokens.grant, hashed=self._hashed(token), now=self._now()))

    @deferred
    async def validate_token_with_tracking(self, token: str) -> Grant | str:
        return await self._ask(self._writes, partial(self._spent, self._hashed(token), self._now()))

    def _hashed(self, token: str) -> str:
        if not well_formed(token):
            raise TokenNotFound()
        return self._hasher.hash(token)

    def _spent(self, hashed: str, now: float) -> Grant:
        """Look before writing: a token that may not be used at all then takes no lock."""
        with self._statements() as connection:
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
        return await self._read(projects.every)

    @deferred
    async def create_project(self, project: Project) -> Project:
        named = replace(project, id=project.id or self._new_id())
        return await self._change(
            partial(projects.create, project=named, sealer=self._sealer, now=self._now()), lambda _: named.id
        )

    @deferred
    async def get_project_by_id(self, project_id: str) -> Project:
        return await self._read(partial(projects.get, project_id=project_id))

    @deferred
    async def update_project(self, project: Project) -> Project:
        return await self._change(
            partial(projects.replace, project=project, sealer=self._sealer, now=self._now()), lambda _: project.id
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
        return await self._read(partial(tokens.get, token_id=token_id))

    @deferred
    async def list_tokens(self, project_id: str | None = None) -> list[Token]:
        return await self._read(partial(tokens.every, project_id=project_id))

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
        counted = dict(uses)

        def add() -> None:
            with self._transaction() as connection:
                tokens.add_uses(connection, counted)

        await self._ask(self._writes, add)

    # For those who keep something of their own in the same database

    @deferred
    async def read(self, work: Callable[[Connection], T]) -> T:
        """Fire with what C{work} reads, in a thread; L{StoreUnavailable} where the database does not answer."""
        return await self._read(work)

    @deferred
    async def write(self, work: Callable[[Connection], T]) -> T:
        """The same in one transaction, of which either everything is kept or nothing."""

        def written() -> T:
            with self._transaction() as connection:
                return work(connection)

        return await self._ask(self._writes, written)

    # How all of them ask

    def _new_id(self) -> str:
        return uuid.UUID(bytes=self._random(16), version=4).hex

    async def _read(self, work: Callable[[Connection], T]) -> T:
        def read() -> T:
            with self._statements() as connection:
                return work(connection)

        return await self._ask(self._reads, read)

    async def _change(self, work: Callable[[Connection], T], project_of: Callable[[T], str]) -> T:
        """Do it in one transaction, and say so from its thread: listeners hear of it even if the caller gave up."""

        def change() -> T:
            with self._transaction() as connection:
                result = work(connection)
            self._reactor.callFromThread(self._changed, project_of(result))
            return result

        return await self._ask(self._writes, change)

    async def _ask(self, threads: Threads, work: Callable[[], T]) -> T:
        def asked() -> T:
            with translated():
                return work()

        return await within(self._timeout, self._reactor, threads.run(asked), StoreUnavailable())

    def _statements(self) -> Any:
        return connecting.reading(self._ready()).connect()

    def _transaction(self) -> Any:
        return self._ready().begin()

    def _ready(self) -> Engine:
        if self._engine is None:
            raise StoreUnavailable()
        return self._engine

    def _changed(self, project_id: str) -> None:
        for listener in self._listeners:
            try:
                listener(project_id)
            except Exception:
                self._log.failure("A listener to the store's changes failed.")
