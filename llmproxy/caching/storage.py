"""Gets and puts entries, the variants of one request among them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.logger import Logger

from llmproxy.caching.keys import variant_key
from llmproxy.caching.rules.entry import Entry, Variants, decode, encode
from llmproxy.caching.rules.reuse import retention
from llmproxy.caching.versioned_cache import IVersionedCache, VersionedValue
from llmproxy.interfaces import ICache, ILocalCache

T = TypeVar("T")

VARIANTS_TTL_SECONDS = 86_400.0  # for which it is known at least by which fields responses are selected


class StoredEntry(NamedTuple):
    """What is stored for a request, if anything.

    @ivar version: Of the request's key, where several processes share the cache: what comes of a call for the request
        is stored under it.
    """

    entry: Entry | None
    version: Any = None


class CacheStorage:
    """Two levels: under a request's key is its response, or by which fields one is selected (RFC 9111, section 4.1).

    @ivar local: The cache, where it is an L{ILocalCache}: then entries are stored as they are, and got at once.
    """

    _log = Logger()

    def __init__(self, cache: ICache, now: Callable[[], float]) -> None:
        self.cache = cache
        self.local = cache if ILocalCache.providedBy(cache) else None
        self._versioned = cache if IVersionedCache.providedBy(cache) else None
        self._now = now

    def get_local(self, key: str, lines: Iterable[bytes]) -> Entry | None:
        """The entry for a request with these lines, where the cache is local."""
        assert self.local is not None
        return self.select_local(self.local.get_now(key), key, lines)

    def select_local(self, stored: object, key: str, lines: Iterable[bytes]) -> Entry | None:
        """The same, out of what stands under the request's key."""
        assert self.local is not None
        if isinstance(stored, Variants):
            stored = self.local.get_now(variant_key(key, stored.generation, stored.names, lines))
        return stored if isinstance(stored, Entry) else None

    async def get(self, key: str, lines: Iterable[bytes]) -> StoredEntry:
        """The same, wherever it is."""
        if self.local is not None:
            return StoredEntry(self.get_local(key, lines))
        stored, version = await self._get(key)
        if isinstance(stored, Variants):
            stored, _ = await self._get(variant_key(key, stored.generation, stored.names, lines))
        return StoredEntry(stored if isinstance(stored, Entry) else None, version)

    async def put(self, key: str, lines: Iterable[bytes], entry: Entry, version: Any = None) -> bool:
        """Store it for as long as it is of use; whether it was stored.

        @param version: Of the L{StoredEntry} that was found for the request.
        """
        if self.local is not None:
            return self.put_local(key, lines, entry)
        ttl = retention(entry, self._now())
        if not entry.vary:
            return await self._put(key, entry, ttl, version)
        stored, _ = await self._get(key)
        variants = self._variants(stored, entry)
        if not await self._put(key, variants, max(ttl, VARIANTS_TTL_SECONDS), version):
            return False
        # Found by way of the key alone, whose version was looked at just now: whoever removes that removes this too.
        key = variant_key(key, variants.generation, variants.names, lines)
        return await self._guarded(self.cache.put(key, encode(entry), ttl), False)

    def put_local(self, key: str, lines: Iterable[bytes], entry: Entry) -> bool:
        """The same, where the cache is local."""
        assert self.local is not None
        put, ttl = self.local.put_now, retention(entry, self._now())
        if entry.vary:
            variants = self._variants(self.local.get_now(key), entry)
            put(key, variants, _size(variants), max(ttl, VARIANTS_TTL_SECONDS))
            key = variant_key(key, variants.generation, variants.names, lines)
        return bool(put(key, entry, _size(entry), ttl))

    def _variants(self, stored: object, entry: Entry) -> Variants:
        """By which fields responses are selected from now on, where this stands under the request's key."""
        if isinstance(stored, Variants) and stored.names == entry.vary:
            return stored
        return Variants(entry.vary, f"{self._now():.6f}")

    def drop(self, key: str) -> Deferred[bool]:
        """Forget what is under this key, all variants included."""
        return succeed(self.local.remove_now(key)) if self.local is not None else self.cache.remove(key)

    async def _get(self, key: str) -> tuple[Entry | Variants | None, Any]:
        """What stands under the key, and its version."""
        if self._versioned is None:
            found = VersionedValue(await self._guarded(self.cache.get(key), None))
        else:
            found = await self._guarded(self._versioned.get_versioned(key), VersionedValue())
        return None if found.value is None else decode(found.value), found.version

    async def _put(self, key: str, stored: Entry | Variants, ttl: float, version: Any) -> bool:
        data = encode(stored)
        if self._versioned is not None:
            return await self._guarded(self._versioned.put_if(key, data, ttl, version), False)
        return await self._guarded(self.cache.put(key, data, ttl), False)

    async def _guarded(self, waiting: Deferred[T], otherwise: T) -> T:
        try:
            return await waiting
        except CancelledError:
            raise
        except Exception:
            self._log.failure("The cache failed, which it never should.")
            return otherwise


def _size(stored: Entry | Variants) -> int:
    """Bytes that it holds in memory, without what every entry costs."""
    if isinstance(stored, Variants):
        return 64 * len(stored.names)
    return (
        len(stored.head) + len(stored.body) + len(stored.etag) + 64 * len(stored.vary) + 96 * len(stored.chunk_timings)
    )
