"""Caches the grants of a validator for a while, so that the usual request waits for nothing."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from hashlib import sha256
from typing import Any, Protocol

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from llmproxy.auth.single_flight import SingleFlight, again
from llmproxy.auth.use_counter import UseCounter
from llmproxy.base.background import Loop
from llmproxy.base.coroutines import as_deferred, deferred, within
from llmproxy.base.token_format import TOKEN_PREFIX
from llmproxy.base.ttl_cache import CacheEntry, CacheLease, TTLCache
from llmproxy.errors import (
    Forbidden,
    ProxyError,
    QuotaExceeded,
    StoreUnavailable,
    TokenExpired,
    TokenInactive,
    TokenNotFound,
    Unauthorized,
)
from llmproxy.interfaces import IImmediateValidator, ITokenStore, ITokenValidator
from llmproxy.model import Grant

MAX_SEEN = 100_000  # valid tokens that are known to be no guesses, by their hashes

Validate = Callable[[str], Deferred[Any]]


class UnknownTokenLookUp(Protocol):
    """Looks up tokens that were never seen."""

    def validate(self, token: str, address: str) -> Deferred[Any]:
        """As C{validate_token}, of a token that comes from this address; may raise as well as fail."""


@implementer(IImmediateValidator)
class CachedTokenValidator(Service):
    """Asks another validator, and caches its grants for C{ttl} seconds.

    They are kept under the token's SHA-256. Expiry is checked on every use; a change takes effect when
    L{forget_project} is called for it, and after C{ttl} at the latest.

    @param clock: How long grants are cached, and when uses are flushed.
    @param now: Seconds since the epoch, for the tokens' expiry.
    @param ttl: Seconds for which a grant is cached; C{issued_ttl}: that of a token that was issued here, where that
        differs, as L{forget_project} is called for all of its changes.
    @param lease: Renewed by whoever calls L{forget_project}: no grant is used for longer than that says.
    @param negative_ttl: Seconds for which a rejection is; at most C{ttl}. That a store is down is never cached.
    @param size: How many grants are cached, and as many rejections.
    @param unknown: Who looks up tokens that were never seen; without it they are looked up like all others.
    @param uses: Where uses of tokens without C{max_requests} are counted in batches while this service runs. Without
        it the validator is asked to count each one.
    @param journaled: Whether those that L{use_now} allows are counted by a ledger, from its journal; C{uses} is then
        left out.
    @param timeout: Seconds after which a question fails with L{StoreUnavailable}.
    @param flush_interval: Seconds between batches.
    """

    name: Any = "tokens"
    _log = Logger()

    def __init__(
        self,
        validator: ITokenValidator,
        *,
        clock: IReactorTime,
        now: Callable[[], float],
        ttl: float = 5.0,
        issued_ttl: float | None = None,
        lease: CacheLease | None = None,
        negative_ttl: float = 1.0,
        size: int = 10_000,
        unknown: UnknownTokenLookUp | None = None,
        uses: ITokenStore | None = None,
        journaled: bool = False,
        timeout: float = 10.0,
        flush_interval: float = 1.0,
    ) -> None:
        self._validator = validator
        self._clock = clock
        self._now = now
        self._timeout = timeout
        self._issued_ttl = ttl if issued_ttl is None else issued_ttl
        self._grants: TTLCache[bytes, Grant] = TTLCache(clock, ttl, size, lease)
        self._rejections: TTLCache[bytes, Unauthorized | Forbidden] = TTLCache(clock, min(ttl, negative_ttl), size)
        self._exhausted: TTLCache[bytes, QuotaExceeded] = TTLCache(clock, min(ttl, negative_ttl), size)
        self._unknown = unknown
        self._blocked: set[tuple[str, str]] = set()
        self._seen: OrderedDict[bytes, None] = OrderedDict()
        self._look_ups: dict[bytes, SingleFlight] = {}
        self._changes = 0
        self._journaled = journaled
        self._counter = self._hits = None
        if uses is not None:
            kept = max(size, 10_000)
            self._counter = UseCounter(uses.count_uses, clock, now, timeout, kept)
            self._hits = UseCounter(uses.count_cache_hits, clock, now, timeout, kept)
        self._flushing = Loop("token_uses", self.flush, flush_interval, clock)
        self.tasks = (self._flushing,)

    # Service

    def startService(self) -> None:
        Service.startService(self)
        if self._counter is not None:
            self._flushing.start()

    @deferred
    async def stopService(self) -> None:
        Service.stopService(self)
        self._flushing.stop()
        await self.flush()
        lost = sum(each.pending + each.dropped for each in (self._counter, self._hits) if each is not None)
        if lost:
            self._log.error("{lost} uses of tokens could not be stored and are lost.", lost=lost)

    @deferred
    async def flush(self) -> None:
        """Fire when the uses counted so far were handed to the store, or it refused them."""
        for counter in (self._counter, self._hits):
            if counter is not None:
                await counter.flush()

    # Without waiting

    def key(self, token: str) -> bytes:
        """What the token is cached under."""
        return _key(token)

    def grant_now(self, key: bytes) -> Grant | None:
        """The grant, where it is cached and has not expired."""
        grant = self._grants.get(key)
        return None if grant is None or (grant.expires_at is not None and self._expired(grant)) else grant

    def entry(self, key: bytes) -> CacheEntry[Grant] | None:
        """The grant, where it is cached, and until when; it may have expired."""
        return self._grants.entry(key)

    def leaves_uses_to_ledger(self, grant: Grant) -> bool:
        """Whether L{use_now} counts nothing, as a ledger counts them from its journal."""
        return self._journaled and grant.max_requests is None and bool(grant.token_id)

    def use_now(self, key: bytes) -> Grant | None:
        """As L{grant_now}, and count one use; C{None} (nothing counted) where only the validator can do that."""
        grant = self._grants.get(key)
        if grant is None or (grant.expires_at is not None and self._expired(grant)):
            return None
        if self.leaves_uses_to_ledger(grant):
            return grant
        return grant if self._counted(grant) else None

    def count_cache_hit(self, token_id: str) -> None:
        """Count one request that was served from the cache."""
        if self._hits is not None and token_id:
            self._hits.count(token_id)

    def undo_use(self, key: bytes, grant: Grant) -> None:
        """A use that was counted was none. One of a limited token can be used again once the store has heard of it."""
        if grant.token_id:
            if self._counter is not None:
                self._counter.take_back(grant.token_id)
            self._exhausted.drop(key)

    def _expired(self, grant: Grant) -> bool:
        return grant.expires_at is not None and grant.expires_at <= self._now()

    def _counted(self, grant: Grant) -> bool:
        if self._counter is None or grant.max_requests is not None or not grant.token_id:
            return False
        if grant.project_active is not False:
            self._counter.count(grant.token_id)
        return True

    def forget_project(self, project_id: str) -> None:
        """Forget what is cached of the project's tokens (C{""}: of all), and whatever is being looked up just now.

        Rejections name no project, so all of them go.
        """
        self._changes += 1
        self._look_ups.clear()
        self._rejections.drop_group("")
        self._exhausted.drop_group("")
        if project_id:
            self._grants.drop_group(project_id)
        else:
            self._grants.clear()

    @deferred
    async def validate_from(self, token: str, client: str) -> Grant | str:
        """As C{validate_token}; one that was never seen waits with others of its kind, at the client's address."""
        return await self._grant(token, _key(token), client)

    # Blocking

    def block(self, kind: str, name: str) -> None:
        """Reject this from now on, whatever the store says: a C{token}, a C{subject}, the C{tokens of project}, or a
        C{project}.

        What is cached of it is forgotten: to look at it anew costs a look-up, to check it each time would cost all.
        """
        self._blocked.add((kind, name))
        self._grants.drop_where(lambda grant: name in (grant.token_id, grant.project_id))

    def unblock(self, kind: str, name: str) -> None:
        """Go by the store again."""
        self._blocked.discard((kind, name))
        self._rejections.drop_group("")
        self._grants.drop_where(lambda grant: name in (grant.token_id, grant.project_id))

    def _as_allowed(self, grant: Grant) -> Grant:
        """The grant as far as it is not blocked; L{TokenInactive} where it is."""
        token, project = grant.token_id, grant.project_id
        if self._blocked & {("token", token), ("subject", token), ("tokens of project", project)}:
            raise TokenInactive(token_id=grant.token_id, project_id=grant.project_id)
        return replace(grant, project_active=False) if ("project", grant.project_id) in self._blocked else grant

    # ITokenValidator

    @deferred
    async def validate_token(self, token: str) -> Grant | str:
        return await self._grant(token, _key(token))

    @deferred
    async def validate_token_with_tracking(self, token: str) -> Grant | str:
        key = _key(token)
        grant = await self._grant(token, key)
        return grant if self._counted(grant) else await self._tracked(token, key)

    async def _grant(self, token: str, key: bytes, client: str | None = None) -> Grant:
        grant = self._grants.get(key)
        if grant is None:
            rejection = self._rejections.get(key)
            if rejection is not None:
                raise again(rejection)
            grant = await self._join(token, key, client)
        if self._expired(grant):
            raise TokenExpired()
        return grant

    def _join(self, token: str, key: bytes, client: str | None) -> Deferred[Grant]:
        """Wait with those who ask the same already, or be the first."""
        look_up = self._look_ups.get(key)
        if look_up is not None:
            return look_up.wait()
        look_up = self._look_ups[key] = SingleFlight()
        result = look_up.wait()
        validate: Validate = self._validator.validate_token
        if client is not None and self._unknown is not None and key not in self._seen:
            validate = partial(self._unknown.validate, address=client)
        look_up.start(Deferred.fromCoroutine(self._look_up(look_up, validate, token, key)))
        return result

    async def _look_up(self, look_up: SingleFlight, validate: Validate, token: str, key: bytes) -> None:
        """Ask the validator, cache the result unless L{forget_project} came in between, and pass it to all who wait."""
        asked_at = self._clock.seconds()
        try:
            grant = await self._ask(validate, token)
        except Exception as e:  # cancelled or not, those who wait must hear of it, and nobody else wants to know
            if isinstance(e, TokenNotFound):
                self._seen.pop(key, None)
            if self._unregister(look_up, key) and isinstance(e, Unauthorized | Forbidden):
                self._rejections.put(key, again(e), asked_at)
            look_up.fail(e)
        else:
            self._mark_seen(key)
            if self._unregister(look_up, key):
                self._keep(token, key, grant, asked_at)
            look_up.succeed(grant)

    def _keep(self, token: str, key: bytes, grant: Grant, asked_at: float) -> None:
        ttl = self._issued_ttl if token.startswith(TOKEN_PREFIX) else None
        self._grants.put(key, grant, asked_at, grant.project_id, ttl)

    def _mark_seen(self, key: bytes) -> None:
        self._seen[key] = None
        self._seen.move_to_end(key)
        if len(self._seen) > MAX_SEEN:
            self._seen.popitem(last=False)

    def _unregister(self, look_up: SingleFlight, key: bytes) -> bool:
        if self._look_ups.get(key) is not look_up:
            return False
        del self._look_ups[key]
        return True

    async def _tracked(self, token: str, key: bytes) -> Grant:
        """Let the validator count, and cache what it reports if nothing has changed meanwhile."""
        exhausted = self._exhausted.get(key)
        if exhausted is not None:
            raise again(exhausted)
        changes, asked_at = self._changes, self._clock.seconds()
        try:
            grant = await self._ask(self._validator.validate_token_with_tracking, token)
        except (Unauthorized, Forbidden, QuotaExceeded) as e:
            if changes == self._changes:
                self._cache_rejection(key, e, asked_at)
            raise
        if changes == self._changes:
            self._keep(token, key, grant, asked_at)
        return grant

    def _cache_rejection(self, key: bytes, error: Unauthorized | Forbidden | QuotaExceeded, asked_at: float) -> None:
        if isinstance(error, QuotaExceeded):
            self._exhausted.put(key, again(error), asked_at)
        else:
            self._grants.drop(key)
            self._rejections.put(key, again(error), asked_at)

    async def _ask(self, validate: Validate, token: str) -> Grant:
        try:
            result = await within(self._timeout, self._clock, as_deferred(validate(token)), StoreUnavailable())
        except (ProxyError, CancelledError):
            raise
        except Exception as e:
            self._log.failure("The token validator failed.")
            raise StoreUnavailable() from e
        grant = Grant(result) if isinstance(result, str) else result
        return self._as_allowed(grant) if self._blocked else grant


def _key(token: str) -> bytes:
    return sha256(token.encode("utf-8", "surrogatepass")).digest()
