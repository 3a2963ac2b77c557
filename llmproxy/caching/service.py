"""The cache as the pipeline uses it: a lookup, a collapsed call, and what is invalidated."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from typing import Any
from weakref import ref

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from llmproxy import errors
from llmproxy.base.memo import BoundedMemo
from llmproxy.base.peers import Peers
from llmproxy.caching.collapsing import CollapsedRequest, InFlight, SoleCall
from llmproxy.caching.fill import CacheFill, fill_at_once
from llmproxy.caching.keys import MAX_TARGET_CHARS, cache_key, key_of_target, key_with_prefix
from llmproxy.caching.lookup import CacheLookup, CacheOutcome, CacheResult, Fetch, LocalHit, RepeatableHit
from llmproxy.caching.read_targets import ReadTargets
from llmproxy.caching.replay import MAX_ONE_WRITE_BYTES
from llmproxy.caching.rules import conditional, invalidation, reuse
from llmproxy.caching.rules.entry import Entry
from llmproxy.caching.rules.request import ApiCachePolicy, CacheRequest, cacheable
from llmproxy.caching.rules.storing import ReceivedHead, StoringRules
from llmproxy.caching.state import CacheState
from llmproxy.caching.storage import CacheStorage
from llmproxy.config.api_settings import Api
from llmproxy.config.model import Settings
from llmproxy.config.routes import Route
from llmproxy.http.field_lines import FieldLines
from llmproxy.http.origin import split_base_url
from llmproxy.instruments import Gauge, Instrument
from llmproxy.interfaces import ICache, IInstrumented, ILocalCache
from llmproxy.model import Grant
from llmproxy.wire.buffers import Buffers
from llmproxy.wire.client.response import Response
from llmproxy.wire.client.response_heads import WholeResponse

_new = tuple.__new__  # makes a NamedTuple in a third of the time that a call of its class takes
MAX_PREFIXES = 4096  # of keys
_DROP = "cache.drop"
_STORED = CacheOutcome("stored")


@implementer(IInstrumented)
class ResponseCache(Service):
    """Serves what it can from the cache, and stores what may be stored.

    @ivar state: What all lookups share.
    @ivar policies: What the settings say, by API.
    @ivar reads: Which targets L{invalidate} may find something of.
    """

    name: Any = "caching"

    def __init__(
        self,
        cache: ICache,
        settings: Settings,
        clock: IReactorTime,
        now: Callable[[], float],
        buffers: Buffers | None = None,
        peers: Peers | None = None,
    ) -> None:
        """
        @param now: Seconds since the epoch.
        @param buffers: Where is counted too what is held because it may be stored; where it is full, nothing is.
        @param peers: Other workers, which are to forget what is invalidated here.
        """
        options = settings.cache
        # In a cache of this process's own no step of the wall clock makes a response older or younger; one that several
        # processes share knows no other clock that they have in common.
        self._ahead = ahead = now() - clock.seconds()
        age_clock = (lambda: clock.seconds() + ahead) if ILocalCache.providedBy(cache) else now
        max_buffered = max(options.max_bytes // 4, options.max_object_bytes)
        buffers = Buffers(1 << 62) if buffers is None else buffers
        self.state = CacheState(
            CacheStorage(cache, age_clock),
            InFlight(options.max_object_bytes, max_buffered, buffers),
            age_clock,
            now,
            clock if options.replay == "timed" else None,
            options.scope,
        )
        local = self.state.storage.local
        self._local_now: Callable[[str], Any] = _nothing if local is None else local.get_now
        self.policies: dict[str, ApiCachePolicy] = {}
        self.reconfigure(settings)
        self._coalesce = options.coalesce
        self._prefixes: BoundedMemo[tuple[str, tuple[str, ...], bytes], str] = BoundedMemo(MAX_PREFIXES)
        self._peers = peers = peers or Peers()
        peers.register(_DROP, self._drop_as_told)
        self.reads = ReadTargets(peers, self.run_in_background, everything=local is None)

    def reconfigure(self, settings: Settings) -> None:
        """Follow what these settings say of APIs from now on; what is stored stays."""
        self.policies |= {name: _policy(name, api, settings) for name, api in settings.apis.items()}

    def instruments(self) -> Iterator[Instrument]:
        in_flight = self.state.in_flight
        yield Gauge("cache_flights", "Calls to providers that requests could join.", lambda: len(in_flight))
        yield Gauge("cache_pending_bytes", "Bytes of answers that may yet be kept.", lambda: in_flight.buffered)

    @property
    def is_local(self) -> bool:
        """Whether what is stored is found at once."""
        return self.state.storage.local is not None

    # What the pipeline does

    def request_for(self, route: Route, grant: Grant, method: bytes, lines: FieldLines) -> CacheRequest | None:
        """The request as the cache sees it, without its key; C{None} where it has nothing to do with the cache."""
        policy = self.policies[route.api_name]
        said = cacheable(policy, method, lines)
        if method in (b"GET", b"HEAD"):
            self.reads.remember(route.target)
        if said is None or (self.state.scope == "token" and not grant.token_id):  # nobody knows whose these would be
            return None
        return CacheRequest(policy, self._tenant(grant), "", method, lines, *said)

    def forbids_calls(self, lines: FieldLines) -> bool:
        """Whether a request that the cache has nothing to do with must not reach its provider either
        (C{only-if-cached}, RFC 9111, section 5.2.1.7).
        """
        return b"cache-control" in lines.names and b"only-if-cached" in reuse.request_directives(lines)

    def with_key(self, request: CacheRequest, target: bytes, body: bytes) -> CacheRequest:
        """The same with its key.

        @param target: Path and query as they are sent to the provider.
        """
        policy, tenant, _, method, lines, directives, explicit_ttl, _ = request
        prefix, content = self._prefix(policy.api, tenant, target), body if request.needs_body else None
        key = key_with_prefix(prefix, policy.api, tenant, method, target, lines, content, policy.marks)
        if not request.needs_body:
            self.reads.tell(target, key)
        return CacheRequest(policy, tenant, key, method, lines, directives, explicit_ttl)

    async def lookup(self, request: CacheRequest) -> CacheLookup:
        """What is stored for the request, and whether that will do. Waits for nothing where the cache is local."""
        storage = self.state.storage
        if storage.local is not None:
            entry = storage.get_local(request.key, request.lines)
        else:
            entry, version = await storage.get(request.key, request.lines)
            request = request._replace(version=version)
        return CacheLookup(request) if entry is None else self._evaluated(request, entry)

    def hit_now(self, request: CacheRequest) -> LocalHit | None:
        """The hit of a C{POST}: with status 200, sent in one write, and nothing is to be done about it.

        C{None} where the cache is not local or has none, and then nothing was done.
        """
        state, lines = self.state, request.lines
        local = state.storage.local
        entry = None if local is None else local.get_now(request.key)
        if entry is None:
            return None
        if not isinstance(entry, Entry):
            entry = state.storage.select_local(entry, request.key, lines)
        if entry is None or entry.code != 200 or len(entry.body) > MAX_ONE_WRITE_BYTES:
            return None
        verdict, age = self._verdict(request, entry, state.now())
        if verdict in ("validate", "refresh") or not conditional.CONDITIONS.isdisjoint(lines.names):
            return None
        if entry.chunk_timings and state.pace:
            return None
        state.hits += 1
        return _new(LocalHit, (entry, age, verdict, entry.lifetime - age))

    def repeatable(self, request: CacheRequest, hit: LocalHit) -> RepeatableHit | None:
        """What finds this hit again for an equal request, sooner than L{hit_now}; C{None} where that alone can tell."""
        entry = hit.entry
        below = reuse.fresh_below(entry, request.directives, request.explicit_ttl)
        return RepeatableHit(request.key, ref(entry), entry.generated_at - self._ahead, below) if below > 0.0 else None

    def hit_again(self, hit: RepeatableHit, now: float) -> LocalHit | None:
        """As L{hit_now}, which is to be asked where this has none.

        @param now: By the clock.
        """
        key, known, generated_at, below = hit
        entry, age = known(), now - generated_at
        if entry is None or age >= below or self._local_now(key) is not entry:
            return None
        self.state.hits += 1
        if age < 0.0:
            age = 0.0
        return _new(LocalHit, (entry, age, "fresh", entry.lifetime - age))

    def begin_sole(self, request: CacheRequest, call: SoleCall) -> bool:
        """Whether a C{POST} may be sent without L{collapse}: nothing is stored for it, and nobody has asked for the
        same. L{end_sole} must follow.

        @param call: The request, which others may want to join.
        """
        storage, in_flight, key = self.state.storage, self.state.in_flight, request.key
        if storage.local is None or request.only_if_cached or storage.get_local(key, request.lines) is not None:
            return False
        if self._coalesce and request.may_join:
            if key in in_flight:
                return False
            in_flight.enter(key, call)
        return True

    def end_sole(self, request: CacheRequest, call: SoleCall) -> None:
        """It is over, or goes on as any other."""
        self.state.in_flight.leave(request.key, call)

    def fill(self, request: CacheRequest, response: WholeResponse, took: float, *, storable: bool) -> CacheOutcome:
        """Store a response to such a request that was all in one read, if that may be.

        @param took: Seconds since the request was sent; C{storable}: of the L{SoleCall}.
        """
        state, shape, body = self.state, response.shape, response.body
        now, length = state.now(), None if shape.length < 0 else len(body)
        head = ReceivedHead(shape.code, shape.phrase, response.lines, now - took, now, state.wall(), length)
        reason = fill_at_once(state, request, head, body, storable=storable)
        return CacheOutcome("miss", reason) if reason else _STORED

    async def collapse(self, lookup: CacheLookup, fetch: Fetch) -> CacheResult:
        """What the provider responds, to this request or to an equal one that is in flight.

        Fails as C{fetch} does, and with L{errors.NotInCache} where the provider must not be called.

        @param fetch: Makes a call with these field lines: the head of its response, and the key that it was sent with.
        """
        request, in_flight = lookup.request, self.state.in_flight
        if request.only_if_cached:
            raise errors.NotInCache
        joins = self._coalesce and request.may_join and lookup.storable
        call = in_flight.get(request.key) if joins else None
        if call is not None and call.leader.request.version != request.version:
            call.forbid_storing()  # another process has removed what there was since that was sent
        elif call is not None:
            result = await call.join(lookup)
            if result is not None:
                return result
            joins = False  # the response was for the other one alone; this one's may be no different
        lookup.call = call = CollapsedRequest(request.key, lookup, in_flight)
        call.storable = lookup.storable
        if joins:
            in_flight.register(call)
        return await call.lead(CacheFill(lookup, call, self.state).run(fetch))

    def invalidate(
        self, route: Route, grant: Grant, method: bytes, lines: FieldLines, response: Response | WholeResponse
    ) -> None:
        """A provider has responded to a request: forget what may not be true any more."""
        policy, reads = self.policies[route.api_name], self.reads
        if not reads.any or method in invalidation.SAFE or not policy.reads:
            return
        for target in invalidation.invalidated_targets(route.target, policy.host, response.code, response.lines):
            elsewhere = reads.may_be_elsewhere(target)
            if elsewhere or reads.may_be_here(target):
                key = cache_key(policy.api, self._tenant(grant), b"GET", target, lines, None, policy.marks)
                self._drop(key)
                if elsewhere and reads.take(key):
                    self._peers.tell(_DROP, key)

    def run_in_background(self, coroutine: Coroutine[Deferred[Any], Any, None]) -> None:
        """Let it go on by itself, until it is over or this service is stopped."""
        self.state.run(coroutine)

    # Service

    def stopService(self) -> Deferred[None]:
        Service.stopService(self)
        return self.state.stop()

    def cancel_background(self) -> None:
        """Stop what goes on in the background."""
        self.state.cancel_background()

    # What an operator does

    async def purge(self, prefix: str) -> int:
        """Forget all whose keys begin so, and store nothing of what is in flight to them; how many they were."""
        self.state.in_flight.forbid_storing(prefix)
        return await self.state.storage.cache.purge(prefix)

    # Within

    def _evaluated(self, request: CacheRequest, entry: Entry) -> CacheLookup:
        """The lookup, with a hit where the entry will do."""
        verdict, age = self._verdict(request, entry, self.state.now())
        if verdict == "validate":
            forward = "request" if age < entry.lifetime and not entry.no_cache else "stale"
            return CacheLookup(request, entry, CacheOutcome(forward=forward))
        lookup = CacheLookup(request)
        if verdict == "refresh" and self._may_refresh(request):
            lookup.refresh = CacheLookup(request, entry, CacheOutcome(forward="stale"))
        lookup.hit = CacheResult(self.state.serve(lookup, entry, "hit", verdict))
        return lookup

    def _verdict(self, request: CacheRequest, entry: Entry, now: float) -> tuple[str, float]:
        """What is to be done with the entry, and its age."""
        age = entry.age(now)
        verdict = reuse.verdict(entry, request.directives, age)
        if request.explicit_ttl is not None and age > request.explicit_ttl:
            verdict = "validate"
        return verdict, age

    def _may_refresh(self, request: CacheRequest) -> bool:
        return not (request.key in self.state.in_flight or request.method == b"HEAD" or request.only_if_cached)

    def _drop(self, key: str) -> None:
        self.state.in_flight.forbid_storing_of(key)
        self.state.storage.drop(key)

    def _drop_as_told(self, key: str) -> None:
        """What was changed through another worker."""
        self.reads.dropped(key)
        self._drop(key)

    def _prefix(self, api: str, tenant: tuple[str, ...], target: bytes) -> str:
        prefix = self._prefixes.get((api, tenant, target))
        if prefix is None:
            prefix = key_of_target(api, tenant, target)
            if len(target) <= MAX_TARGET_CHARS:
                self._prefixes[api, tenant, target] = prefix
        return prefix

    def _tenant(self, grant: Grant) -> tuple[str, ...]:
        if self.state.scope == "project":
            return (grant.project_id,)
        return (grant.project_id, grant.token_id) if self.state.scope == "token" else ()


def _nothing(_: str) -> None:
    """What a cache has at once that is elsewhere."""


def _policy(name: str, api: Api, settings: Settings) -> ApiCachePolicy:
    own_cors = bool(api.allowed_origins)
    options = settings.cache
    origin, base = split_base_url(api.base_url)
    # Whoever changes the address means another service, whose responses are others; all upstreams are one service.
    upstreams = sorted(b"%b%b" % (at.url, path) for at, path in (split_base_url(each.base_url) for each in api.servers))
    return ApiCachePolicy(
        api=name,
        provider=api.provider,
        host=origin.host_header,
        base=base,
        rules=StoringRules(options.scope, options.default_ttl, options.heuristics, own_cors),
        post=api.cache.post,
        ttl=api.cache.ttl,
        streams=options.streams,
        marks=b" ".join([*upstreams, *([b"own-cors"] if own_cors else [])]),
        reads="GET" in api.allowed_methods or "HEAD" in api.allowed_methods,
        max_object_bytes=options.max_object_bytes,
        timeouts=api.timeouts,
    )
