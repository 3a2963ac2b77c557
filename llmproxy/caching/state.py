"""What all lookups and all calls of one cache share."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from llmproxy.base.coroutines import deferred
from llmproxy.caching.collapsing import InFlight
from llmproxy.caching.lookup import CacheLookup, CacheResult
from llmproxy.caching.replay import CachedResponse, cached_response
from llmproxy.caching.rules.entry import Entry
from llmproxy.caching.rules.request import CacheRequest
from llmproxy.caching.storage import CacheStorage


class CacheState:
    """Where entries are, what is in flight, what time it is, and what was counted.

    @ivar now: The time by which ages are counted; C{wall}: seconds since the epoch, to be compared with the dates that
        providers send.
    @ivar pace: The clock by which the pace of streams is measured and replayed; C{None}: that is not wanted.
    @ivar scope: Who may be served a response: C{project}, C{token}, C{shared}.
    @ivar stores: Responses that were stored; C{hits}: requests that were served without a call of their own.
    """

    _log = Logger(namespace="llmproxy.caching.service")

    def __init__(
        self,
        storage: CacheStorage,
        in_flight: InFlight[CacheLookup, CacheResult],
        now: Callable[[], float],
        wall: Callable[[], float],
        pace: IReactorTime | None,
        scope: str,
    ) -> None:
        self.storage = storage
        self.in_flight = in_flight
        self.now = now
        self.wall = wall
        self.pace = pace
        self.scope = scope
        self.stores = self.hits = 0
        self._background: set[Deferred[None]] = set()

    def serve(self, lookup: CacheLookup, entry: Entry, status: str, reason: str = "") -> CachedResponse:
        """The entry, as this client is to get it."""
        now = self.now()
        self.hits += 1
        lookup.report(status, reason, entry.lifetime - entry.age(now))
        return cached_response(entry, lookup.request.method, lookup.request.lines, now, self.pace)

    def store(self, request: CacheRequest, entry: Entry, then: Callable[[], object] = lambda: None) -> None:
        """Store it, and call C{then} when it is where others find it."""
        self.run(self._store(request, entry, then))

    def store_now(self, request: CacheRequest, entry: Entry) -> None:
        """The same, in a cache that is local."""
        if self.storage.put_local(request.key, request.lines, entry):
            self.stores += 1

    async def _store(self, request: CacheRequest, entry: Entry, then: Callable[[], object]) -> None:
        try:
            if await self.storage.put(request.key, request.lines, entry, request.version):
                self.stores += 1
        finally:
            then()

    # What goes on in the background

    def run(self, coroutine: Coroutine[Deferred[Any], Any, None]) -> None:
        """Let it go on by itself, until it is over or this is stopped."""
        running = Deferred.fromCoroutine(coroutine)
        if running.called:
            running.addErrback(self._complain)
            return
        self._background.add(running)
        running.addErrback(self._complain)
        running.addBoth(lambda _: self._background.discard(running))

    def cancel_background(self) -> None:
        for running in list(self._background):
            running.cancel()

    @deferred
    async def stop(self) -> None:
        """Stop what goes on in the background, and come back when it has."""
        self.cancel_background()
        await gatherResults(list(self._background), consumeErrors=True)

    def _complain(self, failure: Any) -> None:
        self._log.debug("A refresh in the background failed: {reason}", reason=failure.getErrorMessage())
