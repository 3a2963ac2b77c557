"""Finds and keeps entries in a cache, the variants of one request among them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.logger import Logger

from llmproxy.caching.backends.memory import MemoryCache
from llmproxy.caching.keys import variant_key
from llmproxy.caching.rules.entry import Entry, Variants, decode, encode
from llmproxy.caching.rules.reuse import retention
from llmproxy.interfaces import ICache

VARIANTS_TTL_SECONDS = 86_400.0  # seconds for which it is known at least by which fields answers are chosen


class CacheStorage:
    """Two levels: under a request's key is its answer, or by which fields one is chosen (RFC 9111, section 4.1).

    @ivar nearby: The cache, where it is in this process: then entries are kept as they are, and found at once.
    """

    _log = Logger()

    def __init__(self, cache: ICache, now: Callable[[], float]) -> None:
        self.cache = cache
        self.local = cache if isinstance(cache, MemoryCache) else None
        self._now = now

    def get_local(self, key: str, lines: Iterable[bytes]) -> Entry | None:
        """The entry for a request with these lines, where the cache is nearby."""
        assert self.local is not None
        kept = self.local.get_now(key)
        if isinstance(kept, Variants):
            kept = self.local.get_now(variant_key(key, kept.generation, kept.names, lines))
        return kept if isinstance(kept, Entry) else None

    async def get(self, key: str, lines: Iterable[bytes]) -> Entry | None:
        """The same, wherever it is."""
        if self.local is not None:
            return self.get_local(key, lines)
        kept = await self._get(key)
        if isinstance(kept, Variants):
            kept = await self._get(variant_key(key, kept.generation, kept.names, lines))
        return kept if isinstance(kept, Entry) else None

    async def put(self, key: str, lines: Iterable[bytes], entry: Entry) -> bool:
        """Keep it for as long as it is of use; whether it was kept."""
        ttl = retention(entry, self._now())
        if not entry.vary:
            return await self._keep(key, entry, ttl)
        there = self.local.get_now(key) if self.local is not None else await self._get(key)
        if not isinstance(there, Variants) or there.names != entry.vary:
            there = Variants(entry.vary, f"{self._now():.6f}")
        await self._keep(key, there, max(ttl, VARIANTS_TTL_SECONDS))
        return await self._keep(variant_key(key, there.generation, there.names, lines), entry, ttl)

    def drop(self, key: str) -> Deferred[bool]:
        """Forget what is under this key, all variants included."""
        return succeed(self.local.remove_now(key)) if self.local is not None else self.cache.remove(key)

    async def _get(self, key: str) -> Entry | Variants | None:
        try:
            data = await self.cache.get(key)
        except CancelledError:
            raise
        except Exception:
            self._log.failure("The cache failed, which it never should.")
            return None
        return None if data is None else decode(data)

    async def _keep(self, key: str, kept: Entry | Variants, ttl: float) -> bool:
        if self.local is not None:
            return self.local.put_now(key, kept, _size(kept), ttl)
        try:
            return await self.cache.put(key, encode(kept), ttl)
        except CancelledError:
            raise
        except Exception:
            self._log.failure("The cache failed, which it never should.")
            return False


def _size(kept: Entry | Variants) -> int:
    """Bytes that it holds in memory, without what every entry costs."""
    if isinstance(kept, Variants):
        return 64 * len(kept.names)
    return len(kept.head) + len(kept.body) + len(kept.etag) + 64 * len(kept.vary) + 96 * len(kept.chunk_timings)
