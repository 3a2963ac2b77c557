"""The store as the rest of the proxy knows it: Deferreds outside, SQL in its own threads inside."""

from __future__ import annotations

import os
import uuid
import weakref
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from shutil import rmtree
from time import time
from typing import Any, TypeVar

from sqlalchemy import Connection
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from llmproxy.base.coroutines import deferred
from llmproxy.base.secret_reference import SecretReference
from llmproxy.base.token_format import is_well_formed, new_token
from llmproxy.errors import Conflict, QuotaExceeded, TokenNotFound, Unauthorized, UpstreamAuthError
from llmproxy.interfaces import IBudgetStore, IProjectStore, IProviderKeyLists, ITokenStore, ITokenValidator, IWatchable
from llmproxy.model import ALL_OF_THEM, Advance, Changes, Grant, ListFilter, Page, PageRequest, Project, Token
from llmproxy.sealing import RandomBytes, Sealer, TokenHasher
from llmproxy.store import budgets, canary, changes, projects, tokens
from llmproxy.store.database import Database
from llmproxy.store.engines import parse_store_url
from llmproxy.store.export import Export
from llmproxy.store.sqlite_file import is_in_memory, temporary_database

T = TypeVar("T")

_log = Logger()


@implementer(IProjectStore, IProviderKeyLists, ITokenStore, ITokenValidator, IBudgetStore, IWatchable)
class Store:
    """Keeps projects and tokens in SQLite, or in a database server.

    @param url: As C{store.url} of the settings; or C{:memory:}, for as long as this object is there.
    @param sealer: Seals provider keys; C{hasher}: hashes tokens. Only what is in memory can do without: their keys are
        then made for it.
    @param reactor: Twisted's global one if left out. Provides L{IReactorTime} and L{IReactorFromThreads}.
    @param now: Seconds since the epoch.
    @param run: The name of this process's journal, by which what it has of budgets in advance is known; C{""} where it
        has none.
    @param unlock: Called with the database when it is opened, before our keys are tried on what it holds.
    @param resolve: Makes the provider key of what is stored in its place; L{UpstreamAuthError} where there is none.
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
        unlock: Callable[[Connection], object] = str,
        resolve: Callable[[SecretReference], Awaitable[str]] | None = None,
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
        self._database = Database(parse_store_url(url), reactor, timeout=timeout, threads=threads, waiting=waiting)
        self._pools = self._database.pools
        self._reactor = reactor
        self._sealer = sealer or Sealer(random(32))
        self._hasher = hasher or TokenHasher(random(32))
        self._random = random
        self._now = now
        self._run = run
        self._unlock = unlock
        self._resolve = resolve or _unresolved
        self._listeners: list[Callable[[str], None]] = []
        self._commit_listeners: list[Callable[[str], None]] = []

    @deferred
    async def open(self) -> None:
        """Upgrade the database, see that our keys open what it holds, and get ready.

        Fail with L{errors.StartupError} where it must not be used, with L{StoreUnavailable} where it does not answer.
        """
        try:
            await self._database.open(self._check)
        except Exception:
            self._forget()
            raise

    def _check(self, connection: Connection) -> None:
        self._unlock(connection)
        canary.check_key(connection, self._sealer, self._hasher)

    @deferred
    async def close(self) -> None:
        """Finish what was begun, within the timeout, and let the database go."""
        await self._database.close()
        self._forget()

    def ping(self) -> Deferred[None]:
        """Fire where the database takes writes; else fail with L{StoreUnavailable}, whose C{reason} says why not."""
        return self._database.ping()

    # IWatchable

    def watch(self, listener: Callable[[str], None]) -> None:
        self._listeners.append(listener)

    def announce(self, project_id: str) -> None:
        """Tell those who watch of a change that was made elsewhere."""
        _notify(self._listeners, project_id)

    def on_commit(self, listener: Callable[[str], None]) -> None:
        """Call C{listener(project_id)} after every change that was made here, to tell others of it."""
        self._commit_listeners.append(listener)

    @deferred
    async def changes(self, epoch: int | None) -> Changes:
        """Fire with what was changed after that epoch, wherever; C{None} for one who has seen nothing yet."""
        return await self._database.read(partial(self._since, epoch), self._pools.changes)

    def _since(self, epoch: int | None, connection: Connection) -> Changes:
        self._database.check_content(connection)
        return changes.since(connection, epoch)

    # ITokenValidator

    @deferred
    async def validate_token(self, token: str) -> Grant | str:
        return await self._database.read(partial(tokens.grant, hashed=self._hash(token), now=self._now()))

    @deferred
    async def validate_token_with_tracking(self, token: str) -> Grant | str:
        return await self._database.run(self._pools.uses, partial(self._spend, self._hash(token), self._now()))

    @deferred
    async def validate_tokens(self, tokens: Sequence[str]) -> list[Grant | Unauthorized]:
        """Fire with what each of these allows, or why nothing, in their order; asked with one statement."""
        return await self._database.read(partial(self._grants_of, tokens, self._now()), self._pools.unknown_tokens)

    def _grants_of(self, presented: Sequence[str], now: float, connection: Connection) -> list[Grant | Unauthorized]:
        hashed = [self._hasher.hash(token) if is_well_formed(token) else "" for token in presented]
        found = tokens.grants(connection, [each for each in hashed if each], now)
        return [found.get(each) or TokenNotFound() for each in hashed]

    def _hash(self, token: str) -> str:
        if not is_well_formed(token):
            raise TokenNotFound()
        return self._hasher.hash(token)

    def _spend(self, hashed: str, now: float) -> Grant:
        """Look before writing: a token that may not be used at all then takes no lock."""
        with self._database.statements(writes=True) as connection:
            grant = tokens.grant(connection, hashed, now)
            if grant.project_active and not tokens.spend(connection, hashed, now):
                tokens.grant(connection, hashed, now)
                raise QuotaExceeded()
        return grant

    # IProjectStore

    @deferred
    async def get_api_key_for_project(self, project_id: str, api: str = "") -> str:
        read = partial(projects.key, project_id=project_id, api=api, sealer=self._sealer)
        return await self._key(await self._database.read(read))

    @deferred
    async def secret_references(self) -> list[str]:
        """Fire with what the provider keys of active projects refer to, each once."""
        return await self._database.read(projects.references, self._pools.lists)

    @deferred
    async def get_api_keys_for_project(self, project_id: str, api: str = "") -> Sequence[str]:
        first = partial(projects.key, project_id=project_id, api=api, sealer=self._sealer)
        others = partial(projects.further, project_id=project_id, api=api, sealer=self._sealer)
        stored = [await self._database.read(first), *await self._database.read(others)]
        return await projects.without_missing(stored, self._key)

    async def _key(self, key: str) -> str:
        return await self._resolve(key) if isinstance(key, SecretReference) else key

    @deferred
    async def get_project_active(self, project_id: str) -> bool:
        return await self._database.read(partial(projects.is_active, project_id=project_id))

    @deferred
    async def list_projects(self) -> list[Project]:
        return await self._database.read(projects.list_all, self._pools.lists)

    @deferred
    async def project_page(self, request: PageRequest, wanted: ListFilter = ALL_OF_THEM) -> Page[Project]:
        return await self._database.read(partial(projects.page, request=request, wanted=wanted), self._pools.lists)

    @deferred
    async def create_project(self, project: Project) -> Project:
        named = replace(project, id=project.id or self._new_id())
        return await self._change(
            partial(projects.create, project=named, sealer=self._sealer, now=self._now()), lambda _: named.id
        )

    @deferred
    async def get_project_by_id(self, project_id: str) -> Project:
        return await self._database.read(partial(projects.get, project_id=project_id), self._pools.lists)

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
    async def rotate_token(self, token_id: str, grace: float, revision: int = 0) -> tuple[Token, str, float]:
        """Issue another secret for a token; fire with the token, the secret, and until when the one before is valid.

        L{Conflict} where the token is revoked, L{ChangedMeanwhile} where it has another revision.
        """
        secret, until = new_token(self._random), self._now() + grace
        rotate = partial(tokens.rotate, token_id=token_id, hashed=self._hasher.hash(secret), prefix=secret[:10],
                         until=until, revision=revision)  # fmt: skip
        rotated = await self._change(rotate, lambda token: token.project_id)
        return rotated, secret, until

    @deferred
    async def get_token(self, token_id: str) -> Token:
        return await self._database.read(partial(tokens.get, token_id=token_id), self._pools.lists)

    @deferred
    async def list_tokens(self, project_id: str | None = None) -> list[Token]:
        return await self._database.read(partial(tokens.list_all, project_id=project_id), self._pools.lists)

    @deferred
    async def token_page(self, request: PageRequest, wanted: ListFilter = ALL_OF_THEM) -> Page[Token]:
        return await self._database.read(partial(tokens.page, request=request, wanted=wanted), self._pools.lists)

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
        await self._database.write(partial(tokens.add_uses, uses=dict(uses)))

    @deferred
    async def count_cache_hits(self, hits: Mapping[str, tuple[int, float]]) -> None:
        await self._database.write(partial(tokens.add_cache_hits, hits=dict(hits)))

    # IBudgetStore

    @deferred
    async def take_budget(self, key: str, least: int, most: int, limit: int, ends: float) -> Advance:
        taking = partial(
            budgets.take, key=key, least=least, most=most, limit=limit, ends=ends, run=self._run, now=self._now()
        )
        try:
            return await self._database.write(taking)
        except Conflict:  # another process was the first to spend of a budget, at this moment
            return await self._database.write(taking)

    @deferred
    async def give_budgets(self, amounts: Mapping[str, int]) -> None:
        await self._database.write(partial(budgets.give_back, amounts=dict(amounts), run=self._run, now=self._now()))

    @deferred
    async def account_budgets(self, amounts: Mapping[str, int]) -> None:
        await self._database.write(partial(budgets.account, run=self._run, charges=dict(amounts), now=self._now()))

    @deferred
    async def budgets_spent(self, keys: Sequence[str]) -> dict[str, int]:
        return await self._database.read(partial(budgets.amounts_spent, keys=list(keys)))

    @deferred
    async def budgets_charged(self, keys: Sequence[str]) -> dict[str, int]:
        """As C{budgets_spent}, without what processes have in advance; what the ledger accounts for."""
        return await self._database.read(partial(budgets.amounts_charged, keys=list(keys)))

    @deferred
    async def forget_budgets(self, before: float) -> int:
        return await self._database.write(partial(budgets.delete_ended, before=before))

    # For those who keep something of their own in the same database

    @deferred
    async def read(self, work: Callable[[Connection], T]) -> T:
        """Fire with what C{work} reads, in a thread; L{StoreUnavailable} where the database does not answer."""
        return await self._database.read(work)

    @deferred
    async def report(self, work: Callable[[Connection], T]) -> T:
        """As L{read}, for what may take a minute; no request waits for the threads that do it."""
        return await self._database.report(work)

    def export(self) -> Export:
        """A result to be read part by part, then closed; L{StoreUnavailable} where enough of them are open."""
        return self._database.export()

    @deferred
    async def write(self, work: Callable[[Connection], T]) -> T:
        """The same in one transaction, of which either everything is kept or nothing."""
        return await self._database.write(work)

    @deferred
    async def manage(self, work: Callable[[Connection], T]) -> T:
        """As L{write}, for operators, who wait for no request's writes."""
        return await self._database.write(work, self._pools.management)

    @deferred
    async def change_all(self, work: Callable[[Connection], T]) -> T:
        """As L{manage}, for what any project may hang on: everybody who watches is told that all may have changed."""
        return await self._change(work, lambda _: "")

    # How a change is made

    def _new_id(self) -> str:
        return uuid.UUID(bytes=self._random(16), version=4).hex

    async def _change(self, work: Callable[[Connection], T], project_of: Callable[[T], str]) -> T:
        """Do it in one transaction, and say so from its thread: listeners hear of it even if the caller gave up."""

        def change() -> T:
            with self._database.transaction() as connection:
                result = work(connection)
                changes.record(connection, project_of(result))
            self._reactor.callFromThread(self._changed, project_of(result))
            return result

        return await self._database.run(self._pools.management, change)

    def _changed(self, project_id: str) -> None:
        _notify(self._listeners, project_id)
        _notify(self._commit_listeners, project_id)


async def _unresolved(reference: SecretReference) -> str:
    raise UpstreamAuthError


def _notify(listeners: Iterable[Callable[[str], None]], project_id: str) -> None:
    for listener in listeners:
        try:
            listener(project_id)
        except Exception:
            _log.failure("A listener to the store's changes failed.")
