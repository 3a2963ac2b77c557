"""A cache in Redis: what one process has put is there for all that use the same server and prefix."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from secrets import token_hex
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from llmproxy.base.background import Task
from llmproxy.base.coroutines import deferred
from llmproxy.caching.backends.undone_removals import UndoneRemovals
from llmproxy.caching.versioned_cache import IVersionedCache, VersionedValue
from llmproxy.errors.management import CacheUnavailable
from llmproxy.instruments import Instrument
from llmproxy.interfaces import IInstrumented
from llmproxy.model import CacheUsage
from llmproxy.redis import RedisClient, RedisRefused, RedisUnavailable, Script

SCAN_BATCH_KEYS = 1000  # keys that are looked at in one step
SCAN_TIMEOUT = 2.0  # seconds for such a step
RECEIVE_TIMEOUT = 1.0  # seconds more for a large value, while it arrives
STORE_TIMEOUT = 1.0  # seconds for a value to be stored: no request waits for that
MARK_SECONDS = 3600.0  # for which a removal is remembered; what took longer than that to arrive is not stored
MARK_MILLISECONDS = int(MARK_SECONDS * 1000)
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

# Removes keys, each followed by that of its mark. A server that is full takes no mark, nor what is in flight.
REMOVE = Script("""
local removed = 0
for at = 1, #KEYS, 2 do
    redis.pcall('SET', KEYS[at + 1], ARGV[1], 'PX', ARGV[2])
    removed = removed + redis.call('UNLINK', KEYS[at])
end
return removed
""")

# Puts a value, where the marks are those that are given; whether it did.
PUT_IF = Script("""
local marks = redis.call('MGET', KEYS[2], KEYS[3])
if (marks[1] or '') ~= ARGV[3] or (marks[2] or '') ~= ARGV[4] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
""")


@dataclass(frozen=True, slots=True)
class KeyVersion:
    """The marks that removals have left: C{removed} of the key, C{purged} of whatever; and when they were read."""

    removed: bytes
    purged: bytes
    read_at: float = field(compare=False)


@implementer(IVersionedCache, IInstrumented)
class RedisCache(MultiService):
    """Keeps each value under C{<prefix>cache:<key>}, to be dropped by the server itself when its time is over.

    How much is kept is up to the server (C{maxmemory}, and a policy such as C{allkeys-lru}). Each removal leaves a mark
    that no other one leaves, for L{MARK_SECONDS}: C{<prefix>cache-removed:<digest of the key>}, and each purge the one
    mark C{<prefix>cache-purged}. So a purge makes every version another one, whatever it is for: it is rare.

    @ivar redis: What it asks, for whoever wants to know how that is.
    """

    def __init__(self, redis: RedisClient, prefix: str, clock: IReactorTime) -> None:
        """
        @param redis: Of its own: it is started and stopped with this cache.
        """
        MultiService.__init__(self)
        self.redis = redis
        self._clock = clock
        self._prefix = f"{prefix}cache:"
        self._removed_prefix, self._purged = f"{prefix}cache-removed:", f"{prefix}cache-purged"
        self._evicted_before: int | None = None
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

    def get_versioned(self, key: str) -> Deferred[VersionedValue]:
        if self._removals.cover(key):
            return succeed(VersionedValue())
        reply = self.redis.call(
            b"MGET", self._prefix + key, self._mark(key), self._purged, receive_timeout=RECEIVE_TIMEOUT
        )
        return reply.addCallbacks(self._versioned, _nothing_known, (self._clock.seconds(),))

    def put(self, key: str, value: bytes, ttl: float) -> Deferred[bool]:
        storing = self.redis.call(b"SET", self._prefix + key, value, b"PX", _milliseconds(ttl), timeout=STORE_TIMEOUT)
        return self._stored(key, storing, b"OK")

    def put_if(self, key: str, value: bytes, ttl: float, version: KeyVersion | None) -> Deferred[bool]:
        if version is None or self._clock.seconds() - version.read_at > MARK_SECONDS:
            return succeed(False)
        storing = self.redis.script(
            PUT_IF,
            [self._prefix + key, self._mark(key), self._purged],
            [value, _milliseconds(ttl), version.removed, version.purged],
            timeout=STORE_TIMEOUT,
        )
        return self._stored(key, storing, 1)

    @deferred
    async def remove(self, key: str) -> bool:
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
        pairs = [name for key in keys for name in (self._prefix + key, self._mark(key))]
        return int(await self.redis.script(REMOVE, pairs, [_new_mark(), MARK_MILLISECONDS]))

    async def _purge(self, prefix: str) -> int:
        try:
            mark = (_new_mark(), b"PX", MARK_MILLISECONDS)
            await self.redis.call(b"SET", self._purged, *mark, timeout=SCAN_TIMEOUT)
        except RedisRefused as e:
            if e.code != "OOM":  # a server that is full takes nothing of what is in flight either
                raise
        removed = 0
        async for keys in self._found(prefix):
            removed += await self.redis.call(b"UNLINK", *keys, timeout=SCAN_TIMEOUT)
        return removed

    @deferred
    async def _stored(self, key: str, storing: Deferred[Any], success: object) -> bool:
        try:
            return bool(await storing == success)
        except RedisUnavailable:
            pass
        try:  # what it would have replaced is not true any more
            await self.redis.call(b"UNLINK", self._prefix + key)
        except RedisUnavailable:
            pass  # it is served only for as long as its provider has allowed
        return False

    def _mark(self, key: str) -> str:
        return self._removed_prefix + blake2b(key.encode(), digest_size=16).hexdigest()

    def _versioned(self, reply: list[bytes | None], read_at: float) -> VersionedValue:
        value, removed, purged = reply
        return VersionedValue(value, KeyVersion(removed or b"", purged or b"", read_at))

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


def _nothing_known(failure: Failure) -> VersionedValue:
    failure.trap(RedisUnavailable)
    return VersionedValue()


def _milliseconds(ttl: float) -> int:
    return max(1, int(min(ttl, MAX_TTL_SECONDS) * 1000))


def _new_mark() -> str:
    return token_hex(8)


def escape_glob(text: str) -> str:
    """A pattern that matches just this text."""
    return "".join(f"\\{char}" if char in "*?[]^\\-" else char for char in text)
