"""A cache made for tests."""

from __future__ import annotations

from collections import Counter
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock
from zope.interface import implementer

from llmproxy.caching import CacheAdmin, ResponseCache
from llmproxy.caching.backends.memory import MemoryCache
from llmproxy.caching.versioned_cache import IVersionedCache, VersionedValue
from llmproxy.config.api_settings import Api
from llmproxy.config.model import Cache, Settings
from llmproxy.interfaces import ICache, ILocalCache
from llmproxy.model import CacheUsage

SIZE = 16 * 1024 * 1024


def settings(**told: Any) -> Settings:
    apis = {
        name: Api(base_url=f"https://{name}.test/base", allowed_endpoints=("/**",)) for name in ("openai", "anthropic")
    }
    return Settings(default_api="openai", apis=apis, cache=Cache(**told))


def contents(clock: Clock, cache: ICache | None = None, **told: Any) -> CacheAdmin:
    """A cache in memory, unless another is given, with these settings under C{cache:}."""
    kept = MemoryCache(clock, SIZE) if cache is None else cache
    return CacheAdmin(ResponseCache(kept, settings(**told), clock, clock.seconds), "memory", SIZE)


@implementer(ICache)
class Far:
    """A cache that only speaks bytes, as one in another process."""

    def __init__(self, clock: IReactorTime) -> None:
        self.inner = MemoryCache(clock, 10_000_000)
        self.garbage: bytes | None = None

    def get(self, key: str) -> Deferred[bytes | None]:
        return self.inner.get(key) if self.garbage is None else succeed(self.garbage)

    def put(self, key: str, value: bytes, ttl: float) -> Deferred[bool]:
        assert isinstance(value, bytes)
        return self.inner.put(key, value, ttl)

    def remove(self, key: str) -> Deferred[bool]:
        return self.inner.remove(key)

    def purge(self, prefix: str) -> Deferred[int]:
        return self.inner.purge(prefix)

    def usage(self) -> Deferred[CacheUsage]:
        return self.inner.usage()


@implementer(IVersionedCache)
class VersionedFar(Far):
    """One that several processes share, of which the test is another one."""

    def __init__(self, clock: IReactorTime) -> None:
        super().__init__(clock)
        self.removed: Counter[str] = Counter()

    def remove(self, key: str) -> Deferred[bool]:
        self.removed[key] += 1
        return super().remove(key)

    def get_versioned(self, key: str) -> Deferred[VersionedValue]:
        return self.get(key).addCallback(VersionedValue, self.removed[key])

    def put_if(self, key: str, value: bytes, ttl: float, version: int | None) -> Deferred[bool]:
        return self.put(key, value, ttl) if version == self.removed[key] else succeed(False)


@implementer(ILocalCache)
class PluginCache:
    """A cache in this process as a plugin may make it: nothing of ours but the interface."""

    def __init__(self, clock: IReactorTime) -> None:
        self.values: dict[str, tuple[Any, float, int]] = {}
        self.deferreds = 0
        self._clock = clock

    def get_now(self, key: str) -> Any:
        value, expires, _ = self.values.get(key, (None, 0.0, 0))
        return value if self._clock.seconds() < expires else None

    def put_now(self, key: str, value: Any, size: int, ttl: float) -> bool:
        self.values[key] = (value, self._clock.seconds() + ttl, size)
        return True

    def remove_now(self, key: str) -> bool:
        return self.values.pop(key, None) is not None

    def usage_now(self) -> CacheUsage:
        return CacheUsage(len(self.values), sum(size for _, _, size in self.values.values()), 0)

    def get(self, key: str) -> Deferred[bytes | None]:
        self.deferreds += 1
        return succeed(self.get_now(key))

    def put(self, key: str, value: bytes, ttl: float) -> Deferred[bool]:
        self.deferreds += 1
        return succeed(self.put_now(key, value, len(value), ttl))

    def remove(self, key: str) -> Deferred[bool]:
        self.deferreds += 1
        return succeed(self.remove_now(key))

    def purge(self, prefix: str) -> Deferred[int]:
        return succeed(sum(self.remove_now(key) for key in [key for key in self.values if key.startswith(prefix)]))

    def usage(self) -> Deferred[CacheUsage]:
        return succeed(self.usage_now())
