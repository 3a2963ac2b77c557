"""One request at the cache: what is stored for it, what came of that, and how the debugging fields tell it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple
from weakref import ref

from llmproxy.caching.broadcast import Subscriber
from llmproxy.caching.collapsing import CollapsedRequest
from llmproxy.caching.replay import CachedResponse
from llmproxy.caching.rules import conditional, reuse
from llmproxy.caching.rules.entry import Entry
from llmproxy.caching.rules.request import CacheRequest
from llmproxy.wire.client.response import Response


class CacheResult(NamedTuple):
    """What a request is served with.

    @ivar secret: The provider's key, to be masked in the response; C{None} where that is done already.
    """

    response: Response | Subscriber | CachedResponse
    secret: bytes | None = None


Fetch = Callable[[list[bytes]], Awaitable[tuple[Response, bytes]]]


class CacheOutcome(NamedTuple):
    """What came of a request at the cache.

    @ivar status: As in C{X-Cache-Status}; C{reason}: one word more. C{stale}: a call was made, has failed, and what was
        stored stands in for its response.
    @ivar forward: Why the provider was called, as C{fwd} of RFC 9211.
    @ivar ttl: Seconds for which what was served from the cache is still fresh; C{None} where nothing was.
    """

    status: str = "miss"
    reason: str = ""
    forward: str = "uri-miss"
    ttl: float | None = None

    @property
    def saves_a_call(self) -> bool:
        """Whether no call was made for this request."""
        return self.status in ("hit", "coalesced")

    def debug_headers(self) -> list[bytes]:
        return [
            b"X-Cache-Status: " + self.status.encode("ascii"),
            b"X-Cache-Debug: " + (self.reason or self.forward).encode("ascii"),
            b"Cache-Status: llmproxy" + self._parameters(),
        ]

    def _parameters(self) -> bytes:
        """As RFC 9211 has them."""
        ttl = b"" if self.ttl is None else b"; ttl=%d" % self.ttl
        if self.status == "hit":
            return b"; hit" + ttl
        forward = b"; fwd=" + self.forward.encode("ascii")
        if self.status == "coalesced":
            return forward + b"; collapsed" + ttl
        if self.status == "revalidated":
            return forward + b"; fwd-status=304" + ttl
        return forward + (b"; stored" if self.status == "stored" else ttl)


MISS = CacheOutcome()


class LocalHit(NamedTuple):
    """An entry that a request is served with as it is.

    @ivar age: In seconds; C{ttl}: those for which it is still fresh.
    @ivar reason: As in L{CacheOutcome}.
    """

    entry: Entry
    age: float
    reason: str
    ttl: float


class RepeatableHit(NamedTuple):
    """A hit that an equal request gets as well, as long as the cache has this very entry.

    @ivar key: The request's; C{entry}: not held, as the cache alone says for how long it is kept.
    @ivar generated_at: When the entry was, by the clock.
    @ivar below: An age; the entry is fresh for the request before it.
    """

    key: str
    entry: ref[Entry]
    generated_at: float
    below: float


class CacheLookup:
    """A request, and what is stored for it.

    @ivar stored: What is stored, where the provider must validate it first.
    @ivar outcome: What came of it so far.
    @ivar hit: What it is served with, where no call is needed.
    @ivar refresh: The lookup of a request of the proxy's own that is to replace what was served stale.
    @ivar storable: Whether what comes of its call may be stored.
    @ivar call: The call that it makes, where it makes one: others may have joined that.
    """

    __slots__ = ("call", "hit", "outcome", "refresh", "request", "storable", "stored")

    def __init__(self, request: CacheRequest, stored: Entry | None = None, outcome: CacheOutcome = MISS) -> None:
        self.request = request
        self.stored = stored
        self.outcome = outcome
        self.hit: CacheResult | None = None
        self.refresh: CacheLookup | None = None
        self.storable = True
        self.call: CollapsedRequest[CacheLookup, CacheResult] | None = None

    def report(self, status: str, reason: str = "", ttl: float | None = None) -> None:
        """Say what came of it."""
        self.outcome = CacheOutcome(status, reason, self.outcome.forward, ttl)

    def outgoing_lines(self) -> list[bytes]:
        """The request's field lines, with conditions of ours where something is stored that can be validated."""
        if self.stored is not None and reuse.validatable(self.stored):
            return conditional.revalidation_lines(self.request.lines, self.stored)
        return self.request.lines

    async def wait_closed(self) -> None:
        """Wait until what others still get of its response is over too."""
        if self.call is not None:
            await self.call.wait_closed()
