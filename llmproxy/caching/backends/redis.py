"""A cache in Redis: what one process has put is there for all that use the same server and prefix."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from llmproxy.base.background import Task
from llmproxy.base.coroutines import deferred
from llmproxy.caching.backends.undone_removals import UndoneRemovals
from llmproxy.errors.management import CacheUnavailable
from llmproxy.instruments import Instrument
from llmproxy.interfaces import ICache, IInstrumented
from llmproxy.model import CacheUsage
from llmproxy.redis import RedisClient, RedisUnavailable, Script

SCAN_BATCH_KEYS = 1000  # keys that are looked at in one step
SCAN_TIMEOUT = 2.0  # seconds for such a step
RECEIVE_TIMEOUT = 1.0  # seconds more for a large value, while it arrives
STORE_TIMEOUT = 1.0  # seconds for a value to be stored: no request waits for that
MAX_TTL_SECONDS = 10 * 365 * 86400.0

# One step through all keys: the next cursor, how many of ours there are, and their bytes.
WEIGH = Script("""
local step = redis.call('SCAN', ARGV[1], 'MATCH', ARGV[2], 'COUNT', ARGV[3])
local size = 0
for _, key in ipairs(step[2]) do
    local length = redis.pcall('STRLEN', key)
    if type(length) == 'number' then size = size + length end
    size = size + #key
end
return {step[1], #step[2], size}
""")


class _Puts:
    """What is being put under one key.

    @ivar count: How many values; C{removed}: whether it is to be gone, all the same.
    """

    __slots__ = ("count", "removed")

    def __init__(self) -> None:
        self.count = 0
        self.removed = False


@implementer(ICache, IInstrumented)
class RedisCache(MultiService):
    """Keeps each value under C{<prefix>cache:<key>}, to be dropped by the server itself when its time is over.

    How much is kept is up to the server (C{maxmemory}, and a policy such as C{allkeys-lru}).

    @ivar redis: What it asks, for whoever wants to know how that is.
    """

    def __init__(self, redis: RedisClient, prefix: str, clock: IReactorTime) -> None:
        """
        @param redis: Of its own: it is started and stopped with this cache.
        """
        MultiService.__init__(self)
        self.redis = redis
        self._prefix = f"{prefix}cache:"
        self._evicted_before: int | None = None
        self._puts: dict[str, _Puts] = {}
        self._removals = UndoneRemovals(self._remove, lambda: self._purge(""), clock)
        parent: Any = redis
        parent.setServiceParent(self)

    @property
    def tasks(self) -> list[Task]:
        """What goes on in the background."""
        return [*self.redis.tasks, self._removals.task]

    def instruments(self) -> Iterator[Instrument]:
        yield from self.redis.instruments("cache")
        yield from self._removals.instruments()

    def startService(self) -> None:
        MultiService.startService(self)
        self._removals.task.start()

    @deferred
    async def stopService(self) -> None:
        self._removals.task.stop()
        stopped: Any = MultiService.stopService(self)
        if stopped is not None:
            await stopped

    def get(self, key: str) -> Deferred[bytes | None]:
        if self._removals.cover(key):
            return succeed(None)
        # Callbacks: a coroutine costs a third more, and this is what every request waits for.
        return self.redis.call(b"GET", self._prefix + key, receive_timeout=RECEIVE_TIMEOUT).addErrback(_unknown)

    @deferred
    async def put(self, key: str, value: bytes, ttl: float) -> bool:
        milliseconds = max(1, int(min(ttl, MAX_TTL_SECONDS) * 1000))
        puts = self._puts.setdefault(key, _Puts())
        puts.count += 1
        try:
            reply = await self.redis.call(b"SET", self._prefix + key, value, b"PX", milliseconds, timeout=STORE_TIMEOUT)
        except RedisUnavailable:
            puts.removed = True  # what it would have replaced is not true any more
            reply = None
        finally:
            puts.count -= 1
            if not puts.count:
                del self._puts[key]
        if puts.removed:  # over the other connection, where it has not waited for a large value
            try:
                await self._remove([key])
            except RedisUnavailable:
                pass  # what stands there is served only for as long as its provider has allowed
            return False
        return bool(reply == b"OK")

    @deferred
    async def remove(self, key: str) -> bool:
        self._removed(key)
        return await self._removals.remove(key)

    @deferred
    async def purge(self, prefix: str) -> int:
        try:
            return await self._purge(prefix)
        except RedisUnavailable as e:
            raise CacheUnavailable(
                f"Redis failed while the cache was purged: {e} Stored responses may be left. Purge again once "
                "Redis can be used."
            ) from e

    async def _remove(self, keys: Sequence[str]) -> int:
        return int(await self.redis.call(b"UNLINK", *[self._prefix + key for key in keys]))

    async def _purge(self, prefix: str) -> int:
        for key in self._puts:
            if key.startswith(prefix):
                self._removed(key)
        removed = 0
        async for keys in self._found(prefix):
            removed += await self.redis.call(b"UNLINK", *keys, timeout=SCAN_TIMEOUT)
        return removed

    def _removed(self, key: str) -> None:
        """What is being put there is to be gone, whenever it arrives."""
        puts = self._puts.get(key)
        if puts is not None:
            puts.removed = True

    @deferred
    async def usage(self) -> CacheUsage:
        entries = size = evicted = 0
        cursor: bytes | int = 0
        pattern = escape_glob(self._prefix) + "*"
        try:
            while True:
                cursor, count, weight = await self.redis.script(
                    WEIGH, [], [cursor, pattern, SCAN_BATCH_KEYS], timeout=SCAN_TIMEOUT
                )
                entries, size = entries + count, size + weight
                if cursor == b"0":
                    break
            evicted = self._evicted(await self.redis.call(b"INFO", b"stats", timeout=SCAN_TIMEOUT))
        except RedisUnavailable:
            pass  # then what was seen so far is all that is known
        return CacheUsage(entries, size, evicted)

    async def _found(self, prefix: str) -> AsyncIterator[list[bytes]]:
        """Our keys with that prefix, some at a time: nobody else waits while all are looked through."""
        cursor: bytes | int = 0
        pattern = escape_glob(self._prefix + prefix) + "*"
        while cursor != b"0":
            cursor, keys = await self.redis.call(
                b"SCAN",
                cursor,
                b"MATCH",
                pattern,
                b"COUNT",
                SCAN_BATCH_KEYS,
                timeout=SCAN_TIMEOUT,
                receive_timeout=RECEIVE_TIMEOUT,
            )
            if keys:
                yield keys

    def _evicted(self, info: bytes) -> int:
        """How many keys the server had to drop since we first looked; it begins anew when it is restarted."""
        _, _, rest = info.partition(b"evicted_keys:")
        count = int(rest.split(None, 1)[0]) if rest else 0
        if self._evicted_before is None:
            self._evicted_before = count
        self._evicted_before = min(self._evicted_before, count)
        return count - self._evicted_before


def _unknown(failure: Failure) -> None:
    failure.trap(RedisUnavailable)


def escape_glob(text: str) -> str:
    """A pattern that matches just this text."""
    return "".join(f"\\{char}" if char in "*?[]^\\-" else char for char in text)
