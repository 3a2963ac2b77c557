"""The cache as the journey knows it: what may be asked of it, what is being fetched, and what was counted."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from llmproxy.caching.backends.memory import MemoryCache
from llmproxy.caching.collapsing import CollapsedRequest
from llmproxy.caching.keys import MAX_TARGET_CHARS, cache_key, key_prefix
from llmproxy.caching.lookup import CacheLookup, Refetch
from llmproxy.caching.rules import invalidation, reuse
from llmproxy.caching.rules.entry import Entry
from llmproxy.caching.rules.storing import StoringRules
from llmproxy.caching.storage import CacheStorage
from llmproxy.config.api_settings import Api
from llmproxy.config.model import Settings
from llmproxy.config.routes import Route
from llmproxy.coroutines import deferred
from llmproxy.http.field_lines import FieldLines
from llmproxy.http.origin import split_base_url
from llmproxy.instruments import Gauge, Instrument
from llmproxy.interfaces import ICache, IInstrumented
from llmproxy.model import Grant
from llmproxy.wire.buffers import Buffers
from llmproxy.wire.client.response import Response

MAX_REMEMBERED_TARGETS = 4096  # targets that somebody has asked for with GET; beyond these every target may be one


@dataclass(frozen=True)
class ApiCachePolicy:
    """What the settings say about one API.

    @ivar host: The provider's, as in C{Host}; C{base}: the path that goes before a client's.
    @ivar post: Whether a C{POST} may be answered from the cache: C{optin}, C{always} or C{never}.
    @ivar ttl: For how long the answer to one is fresh, where neither the request nor the provider says.
    @ivar marks: Settings that make answers differ.
    """

    api: str
    provider: str
    host: bytes
    base: bytes
    rules: StoringRules
    post: str
    ttl: float
    streams: bool
    marks: bytes
    reads: bool


@implementer(IInstrumented)
class ResponseCache(Service):
    """Answers what it can from the cache, and keeps what may be kept.

    @ivar now: The time by which ages are counted. In a cache of this process's own no step of the wall clock makes an
        answer older or younger; one that several processes share knows no other clock that they have in common.
    @ivar wall: Seconds since the epoch, to be compared with the dates that providers send.
    @ivar scope: Who may be given an answer: C{project}, C{token}, C{shared}.
    @ivar plans: What the settings say, by API.
    @ivar flights: The calls to providers that others may join, by key.
    @ivar buffered: Bytes of answers that are held because they may be kept once they are complete.
    """

    name: Any = "caching"
    _log = Logger()

    def __init__(
        self,
        cache: ICache,
        settings: Settings,
        clock: IReactorTime,
        now: Callable[[], float],
        buffers: Buffers | None = None,
    ) -> None:
        """
        @param now: Seconds since the epoch.
        @param buffers: Where is counted too what is held because it may be kept; where it is full, nothing is.
        """
        told = settings.cache
        self.wall = now
        self.now = now if not isinstance(cache, MemoryCache) else _steady(clock, now)
        self.storage = CacheStorage(cache, self.now)
        self.max_object = told.max_object_bytes
        self.max_buffered = max(told.max_bytes // 4, told.max_object_bytes)
        self.coalesce = told.coalesce
        self.timed = clock if told.replay == "timed" else None
        self.flights: dict[str, CollapsedRequest] = {}
        self.buffered = 0
        self.buffers = Buffers(1 << 62) if buffers is None else buffers
        self.stores = self.hits = 0
        self._clock = clock
        self.scope = told.scope
        self.plans = {name: _plan(name, api, settings) for name, api in settings.apis.items()}
        self._prefixes: dict[tuple[str, tuple[str, ...], bytes], str] = {}
        self._reads: set[bytes] | None = set()
        self._background: set[Deferred[Any]] = set()

    def instruments(self) -> Iterator[Instrument]:
        yield Gauge("cache_flights", "Calls to providers that requests could join.", lambda: len(self.flights))
        yield Gauge("cache_pending_bytes", "Bytes of answers that may yet be kept.", lambda: self.buffered)

    # What the journey asks

    def consider(self, route: Route, grant: Grant, method: bytes, lines: FieldLines) -> CacheLookup | None:
        """How a request deals with the cache; C{None} for one that has nothing to do with it."""
        plan = self.plans[route.api_name]
        if method == b"POST":
            if plan.post == "never" or (plan.post == "optin" and b"cache-control" not in lines.names):
                return None
            said = reuse.request_directives(lines)
            granted = reuse.explicit_ttl(said)
            if granted is None and plan.post == "always":
                granted = plan.ttl or None
            if granted is None:
                return None
        elif method in (b"GET", b"HEAD"):
            if b"transfer-encoding" in lines.names or b"content-length" in lines.names:
                return None
            said, granted = reuse.request_directives(lines), None
            self._remember(route.target)
        else:
            return None
        if self.scope == "token" and not grant.token_id:
            return None  # nobody knows whose answers these would be
        if b"no-store" in said or not reuse.BYPASSING_FIELDS.isdisjoint(lines.names):
            return None
        return CacheLookup(self, plan, self._tenant(grant), grant.token_id, method, lines, said, granted)

    def changed(self, route: Route, grant: Grant, method: bytes, lines: FieldLines, answer: Response) -> None:
        """A request that has nothing to do with the cache was answered: what it makes doubtful is forgotten."""
        plan = self.plans[route.api_name]
        nobody_reads = self._reads is not None and not self._reads and self.storage.local is not None
        if nobody_reads or method in invalidation.SAFE or not plan.reads:
            return
        for target in invalidation.invalidated_targets(route.target, plan.host, answer.code, answer.lines):
            if self._reads is None or self.storage.local is None or target.partition(b"?")[0] in self._reads:
                self.drop(cache_key(plan.api, self._tenant(grant), b"GET", target, lines, None, plan.marks))

    async def purge(self, prefix: str) -> int:
        """Forget all whose keys begin so, and keep nothing of what is under way to them; how many they were."""
        for flight in [flight for key, flight in self.flights.items() if key.startswith(prefix)]:
            flight.forgo()
        return await self.storage.cache.purge(prefix)

    def drop(self, key: str) -> None:
        """The same for one key."""
        flight = self.flights.get(key)
        if flight is not None:
            flight.forgo()
        self.storage.drop(key)

    def prefix(self, api: str, tenant: tuple[str, ...], target: bytes) -> str:
        """L{key_prefix}, remembered."""
        known = self._prefixes.get((api, tenant, target))
        if known is None:
            known = key_prefix(api, tenant, target)
            if len(self._prefixes) >= MAX_REMEMBERED_TARGETS:
                self._prefixes.clear()
            if len(target) <= MAX_TARGET_CHARS:
                self._prefixes[api, tenant, target] = known
        return known

    def _tenant(self, grant: Grant) -> tuple[str, ...]:
        if self.scope == "project":
            return (grant.project_id,)
        return (grant.project_id, grant.token_id) if self.scope == "token" else ()

    def _remember(self, target: bytes) -> None:
        if self._reads is not None:
            self._reads.add(target.partition(b"?")[0])
            if len(self._reads) > MAX_REMEMBERED_TARGETS:
                self._reads = None

    # What requests and flights ask

    def landed(self, flight: CollapsedRequest) -> None:
        """Nobody can join it any more."""
        if self.flights.get(flight.leader.key) is flight:
            del self.flights[flight.leader.key]

    def measuring(self, entry: Entry) -> IReactorTime | None:
        """The clock by which an answer's pace is measured, where somebody wants to know it."""
        return self.timed if entry.stream else None

    def keep(self, asking: CacheLookup, entry: Entry, then: Callable[[], object] = lambda: None) -> None:
        """Keep it, and call C{then} when it is where others find it."""
        self._run(self._keep(asking, entry, then))

    async def _keep(self, asking: CacheLookup, entry: Entry, then: Callable[[], object]) -> None:
        try:
            if await self.storage.put(asking.key, asking.lines, entry):
                self.stores += 1
        finally:
            then()

    def gave(self, asking: CacheLookup) -> None:
        """A request was answered without a call of its own."""
        self.hits += 1

    def refresh(self, asking: CacheLookup, entry: Entry, refetch: Refetch) -> None:
        """Fetch a fresh answer in the place of a stale one that has just been given."""
        if asking.key in self.flights or asking.method == b"HEAD" or b"only-if-cached" in asking.said:
            return
        own = CacheLookup(
            self, asking.plan, asking.tenant, asking.token_id, asking.method, asking.lines, asking.said, asking.granted
        )
        own.refreshes(asking.key, entry)
        self._run(refetch(own))

    # Service

    @deferred
    async def stopService(self) -> None:
        Service.stopService(self)
        self.rest()
        await gatherResults(list(self._background), consumeErrors=True)

    def rest(self) -> None:
        """Stop what goes on in the background."""
        for running in list(self._background):
            running.cancel()

    def _run(self, coroutine: Coroutine[Deferred[Any], Any, None]) -> None:
        """Let it go on by itself, until it is over or this service is stopped."""
        running = Deferred.fromCoroutine(coroutine)
        if running.called:
            running.addErrback(self._complain)
            return
        self._background.add(running)
        running.addErrback(self._complain)
        running.addBoth(lambda _: self._background.discard(running))

    def _complain(self, failure: Any) -> None:
        self._log.debug("A refresh in the background failed: {reason}", reason=failure.getErrorMessage())


def _steady(clock: IReactorTime, now: Callable[[], float]) -> Callable[[], float]:
    """Seconds since the epoch by a clock that is never set: as it was when this began, and what has passed since."""
    ahead = now() - clock.seconds()
    return lambda: clock.seconds() + ahead


def _plan(name: str, api: Api, settings: Settings) -> ApiCachePolicy:
    own_cors = bool(api.allowed_origins)
    told = settings.cache
    origin, base = split_base_url(api.base_url)
    return ApiCachePolicy(
        api=name,
        provider=api.provider,
        host=origin.host_header,
        base=base,
        rules=StoringRules(told.scope, told.default_ttl, told.heuristics, own_cors),
        post=api.cache.post,
        ttl=api.cache.ttl,
        streams=told.streams,
        marks=b"own-cors" if own_cors else b"",
        reads="GET" in api.allowed_methods or "HEAD" in api.allowed_methods,
    )
