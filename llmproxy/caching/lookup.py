"""One request's dealings with the cache."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from twisted.web.iweb import UNKNOWN_LENGTH

from llmproxy import errors
from llmproxy.caching.collapsing import CacheResult, CollapsedRequest, Fetch
from llmproxy.caching.keys import key_with_prefix
from llmproxy.caching.replay import CachedResponse
from llmproxy.caching.rules import conditional, reuse, storing
from llmproxy.caching.rules.directives import Directives
from llmproxy.caching.rules.entry import Entry
from llmproxy.caching.rules.storing import NotStored, ResponseHead
from llmproxy.http import body_hints
from llmproxy.http.field_lines import FieldLines
from llmproxy.wire.client.response import Response

if TYPE_CHECKING:
    from llmproxy.caching.service import ApiCachePolicy, ResponseCache


Refetch = Callable[["CacheLookup"], Coroutine[Any, Any, None]]


class CacheLookup:
    """A request that may be answered from the cache, or whose answer may be kept.

    @ivar status: What came of it, as in C{X-Cache-Status}; C{why}: one word more.
    @ivar entry: What is kept for it, where the provider must be asked about that first.
    @ivar said: Its C{Cache-Control}.
    @ivar taps: See every piece of the provider's answer once, if it is shared with others; set before L{fetch}.
    @ivar granted: For how long it lets its answer be kept; C{None} where that is for the provider to say.
    """

    status = "miss"
    why = ""
    key = ""
    entry: Entry | None = None
    taps: Sequence[Callable[[bytes], object]] = ()

    _forward = "uri-miss"
    _looked = False
    _given: Entry | None = None
    _flight: CollapsedRequest | None = None
    _refetch: Refetch

    def __init__(
        self,
        caching: ResponseCache,
        plan: ApiCachePolicy,
        tenant: tuple[str, ...],
        token_id: str,
        method: bytes,
        lines: FieldLines,
        said: Directives,
        granted: float | None,
    ) -> None:
        self.caching = caching
        self.plan = plan
        self.tenant = tenant
        self.token_id = token_id
        self.method = method
        self.lines = lines
        self.said = said
        self.granted = granted

    @property
    def needs_body(self) -> bool:
        """Whether its key hangs on the request's body."""
        return self.method == b"POST"

    def recall(self, target: bytes, body: bytes | None, refetch: Refetch) -> CacheResult | None:
        """What is kept for it, where that can be told at once.

        @param target: Path and query as they are sent to the provider.
        @param refetch: Fetches what is kept anew, where it may be given once more but is stale.
        """
        self._refetch = refetch
        caching, plan, tenant = self.caching, self.plan, self.tenant
        body = body if self.needs_body else None
        prefix = caching.prefix(plan.api, tenant, target)
        self.key = key_with_prefix(prefix, plan.api, tenant, self.method, target, self.lines, body, plan.marks)
        storage = caching.storage
        if storage.local is None:
            return None
        self._looked = True
        return self._recalled(storage.get_local(self.key, self.lines))

    async def fetch(self, fetch: Fetch) -> CacheResult:
        """What is kept for it, or what the provider answers; L{errors.NotInCache} where it must not be asked."""
        if not self._looked:
            found = self._recalled(await self.caching.storage.get(self.key, self.lines))
            if found is not None:
                return found
        if b"only-if-cached" in self.said:
            raise errors.NotInCache
        joins = self.method != b"HEAD" and b"no-cache" not in self.said and self.caching.coalesce
        flight = self.caching.flights.get(self.key) if joins else None
        if flight is not None:
            found = await flight.join(self)
            if found is not None:
                return found
            joins = False  # the answer was for the other one alone; this one's may be no different
        self._flight = flight = CollapsedRequest(self)
        if joins and self.key not in self.caching.flights:
            self.caching.flights[self.key] = flight
        return await flight.lead(fetch)

    def refreshes(self, key: str, entry: Entry) -> None:
        """No client waits for it: it is there to replace this entry."""
        self.key, self.entry, self._looked, self._forward = key, entry, True, "stale"

    @property
    def leads(self) -> bool:
        """Whether the call to the provider is its own, and others may have joined it."""
        return self._flight is not None

    async def over(self) -> None:
        """Wait until what others still get of its answer is over too."""
        if self._flight is not None:
            await self._flight.outlasted()

    # What the flight asks

    @property
    def revalidates(self) -> bool:
        """Whether a 304 means the entry, and not what the client has."""
        return self.entry is not None and bool(self.entry.etag or self.entry.last_modified)

    def outgoing(self) -> list[bytes]:
        """The request's lines, with conditions of ours where something is kept."""
        if self.entry is not None and self.revalidates:
            return conditional.revalidation_lines(self.lines, self.entry)
        return self.lines

    def may_serve_stale(self) -> bool:
        """Whether what is kept will do, where the provider fails."""
        return self.entry is not None and reuse.may_serve_stale(self.entry, self.said, self.caching.now())

    def judged(self, received: ResponseHead, answer: Response) -> Entry | NotStored:
        """What is to be kept of the answer, or why nothing is."""
        if self.method == b"HEAD":
            return NotStored("head")
        entry = storing.storable(received, self.plan.rules, self.said, self.granted)
        if isinstance(entry, NotStored):
            return entry
        if body_hints.is_stream_response(received.lines) and not (entry.stream and self.plan.streams):
            return NotStored("stream")
        if answer.length == UNKNOWN_LENGTH:
            if not _ends_visibly(answer):
                return NotStored("no-visible-end")
        elif int(answer.length) > self.caching.max_object:
            return NotStored("too-large")
        return entry

    def give(self, entry: Entry, status: str) -> CacheResult:
        """The entry, as this client is to get it."""
        self.status = status
        self._given = entry
        self.caching.gave(self)
        now = self.caching.now()
        age = b"Age: %d" % entry.age(now)
        if conditional.not_modified(entry, self.lines, now):
            lines = [*conditional.not_modified_lines(entry), age]
            return CacheResult(CachedResponse(entry, 304, b"Not Modified", lines, b"", None))
        body = b"" if self.method == b"HEAD" else entry.body
        timed = self.caching.timed if entry.chunk_timings else None
        length = None if entry.stream else len(entry.body)
        return CacheResult(CachedResponse(entry, entry.code, entry.phrase, [*entry.lines, age], body, length, timed))

    def forget(self) -> None:
        """What is kept for it is not true any more."""
        if self.entry is not None:
            self.caching.storage.drop(self.key)

    # What is told of it

    def told(self) -> list[bytes]:
        """The debugging lines of its answer."""
        return [
            b"X-Cache-Status: " + self.status.encode("ascii"),
            b"X-Cache-Debug: " + (self.why or self._forward).encode("ascii"),
            b"Cache-Status: llmproxy" + self._parameters(),
        ]

    def _parameters(self) -> bytes:
        """As RFC 9211 has them."""
        given = self._given
        ttl = b"" if given is None else b"; ttl=%d" % (given.lifetime - given.age(self.caching.now()))
        if self.status == "hit":
            return b"; hit" + ttl
        forward = b"; fwd=" + self._forward.encode("ascii")
        if self.status == "coalesced":
            return forward + b"; collapsed" + ttl
        if self.status == "revalidated":
            return forward + b"; fwd-status=304" + ttl
        return forward + (b"; stored" if self.status == "stored" else b"")

    def _recalled(self, entry: Entry | None) -> CacheResult | None:
        if entry is None:
            return None
        now = self.caching.now()
        verdict = reuse.verdict(entry, self.said, now)
        if self.granted is not None and entry.age(now) > self.granted:
            verdict = "validate"
        if verdict == "validate":
            self._forward = "request" if entry.age(now) < entry.lifetime and not entry.no_cache else "stale"
            self.entry = entry
            return None
        self.why = verdict
        if verdict == "refresh":
            self.caching.refresh(self, entry, self._refetch)
        return self.give(entry, "hit")


def _ends_visibly(answer: Response) -> bool:
    """Whether a body of unknown length tells that it is complete: one that ends with its connection does not."""
    return b"chunked" in b",".join(FieldLines.of(answer.lines).values(b"transfer-encoding")).lower()
