"""Stores responses in this process: the least recently used have to go once there is no room."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from heapq import heappop, heappush
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.plugin import IPlugin
from zope.interface import implementer

from llmproxy.base.background import Task
from llmproxy.base.coroutines import deferred
from llmproxy.instruments import Counter, Gauge, Instrument
from llmproxy.interfaces import ICacheFactory, IInstrumented, ILocalCache
from llmproxy.model import CacheUsage

SWEEP_INTERVAL_SECONDS = 16.0  # what expires within the same interval is freed together
ENTRY_OVERHEAD_BYTES = 1100  # that an entry costs besides its key and what it holds


@implementer(ILocalCache, IInstrumented)
class MemoryCache(Service):
    """Holds at most C{limit} bytes, bookkeeping included. Every look-up and every store takes the same short time.

    What has expired is never served, and is freed within L{SWEEP_INTERVAL_SECONDS} of the next store or the next sweep.
    """

    name: Any = "cache"

    def __init__(self, clock: IReactorTime, limit: int) -> None:
        self._clock = clock
        self._limit = limit
        self._held: OrderedDict[str, tuple[float, int, Any]] = OrderedDict()
        self._size = 0
        self._evicted = 0
        self._due: dict[int, set[str]] = {}
        self._ticks: list[int] = []
        self._sweeping: IDelayedCall | None = None
        self._stopped = False
        self._task = Task("cache", clock)
        self.tasks = (self._task,)

    # ILocalCache

    def get_now(self, key: str) -> Any:
        held = self._held.get(key)
        if held is None:
            return None
        if held[0] <= self._clock.seconds():
            self._drop(key)
            return None
        self._held.move_to_end(key)
        return held[2]

    def put_now(self, key: str, value: Any, size: int, ttl: float) -> bool:
        cost = size + len(key) + ENTRY_OVERHEAD_BYTES
        self._drop(key)
        if cost > self._limit or ttl <= 0:
            return False
        now = self._clock.seconds()
        self._sweep(now)
        while self._size + cost > self._limit:
            self._drop(next(iter(self._held)))
            self._evicted += 1
        self._held[key] = (now + ttl, cost, value)
        self._size += cost
        self._remember_due(key, now + ttl)
        self._arm()
        return True

    def remove_now(self, key: str) -> bool:
        held = self._held.get(key)
        self._drop(key)
        return held is not None and held[0] > self._clock.seconds()

    # ICache

    def instruments(self) -> Iterator[Instrument]:
        yield Gauge("cache_entries", "Answers that are kept in memory.", lambda: self.usage_now().entries)
        yield Gauge("cache_bytes", "Bytes that they take.", lambda: self.usage_now().size)
        yield Counter("cache_evictions", "Answers that had to go for want of room.", lambda: self.usage_now().evicted)

    def get(self, key: str) -> Deferred[bytes | None]:
        return succeed(self.get_now(key))

    def put(self, key: str, value: bytes, ttl: float) -> Deferred[bool]:
        return succeed(self.put_now(key, value, len(value), ttl))

    def remove(self, key: str) -> Deferred[bool]:
        return succeed(self.remove_now(key))

    @deferred
    async def purge(self, prefix: str) -> int:
        self._sweep(self._clock.seconds())
        return sum(self.remove_now(key) for key in [key for key in self._held if key.startswith(prefix)])

    @deferred
    async def usage(self) -> CacheUsage:
        self._sweep(self._clock.seconds())
        return self.usage_now()

    def usage_now(self) -> CacheUsage:
        return CacheUsage(len(self._held), self._size, self._evicted)

    # Service

    def startService(self) -> None:
        Service.startService(self)
        self._stopped = False

    def stopService(self) -> None:
        Service.stopService(self)
        self._stopped = True
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None

    # What has expired

    def _remember_due(self, key: str, at: float) -> None:
        tick = int(at // SWEEP_INTERVAL_SECONDS) + 1
        due = self._due.get(tick)
        if due is None:
            due = self._due[tick] = set()
            heappush(self._ticks, tick)
        due.add(key)

    def _sweep(self, now: float) -> None:
        while self._ticks and self._ticks[0] * SWEEP_INTERVAL_SECONDS <= now:
            for key in self._due.pop(heappop(self._ticks)):
                held = self._held.get(key)
                if held is not None and held[0] <= now:
                    self._drop(key, due=False)

    def _drop(self, key: str, due: bool = True) -> None:
        held = self._held.pop(key, None)
        if held is None:
            return
        self._size -= held[1]
        if due and (keys := self._due.get(int(held[0] // SWEEP_INTERVAL_SECONDS) + 1)) is not None:
            keys.discard(key)

    def _arm(self) -> None:
        if self._sweeping is None and not self._stopped:
            self._sweeping = self._clock.callLater(SWEEP_INTERVAL_SECONDS, self._tick)

    def _tick(self) -> None:
        self._sweeping = None
        try:
            self._sweep(self._clock.seconds())
            self._task.worked()
        except Exception:
            self._task.failed()
        if self._held:
            self._arm()


@implementer(IPlugin, ICacheFactory)
class MemoryCacheFactory:
    """C{cache: {backend: memory}}: each process for itself, at most C{cache.max_bytes}."""

    name = "memory"

    def cache(self, settings: Any, reactor: Any) -> MemoryCache:
        return MemoryCache(reactor, settings.cache.max_bytes)
