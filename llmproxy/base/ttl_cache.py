"""Values that are kept for a while, within bounds; for longer where changes of them are heard of."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from math import inf
from typing import Any, Generic, TypeVar

from twisted.internet.interfaces import IReactorTime

K = TypeVar("K")
V = TypeVar("V")


class CacheLease:
    """For how long values may be used without a look at where they were read: whoever hears of their changes, and has
    those that have changed dropped, renews it (Gray and Cheriton, 1989).

    @ivar seconds: For which a value may be used after it was read, and all of them after the last renewal.
    @ivar until: What is not dropped may be used before that time of the clock.
    """

    __slots__ = ("seconds", "until")

    def __init__(self, seconds: float = inf) -> None:
        self.seconds = seconds
        self.until = -inf

    def renew(self, asked_at: float) -> None:
        """All changes that were made before that time of the clock are known, or become so in this very turn."""
        self.until = asked_at + self.seconds


class CacheEntry(Generic[V]):
    """A value that is kept; whoever has the entry need not ask the cache.

    @ivar until: The value is good before that time of the clock: before none, once it was dropped or replaced. From
        then on L{is_good} tells.
    @ivar last: It is good before that time at most, however long changes are heard of.
    @ivar group: That which it is in.
    """

    __slots__ = ("_cache", "group", "key", "last", "until", "value")

    def __init__(
        self,
        until: float,
        value: V,
        group: str,
        last: float = -inf,
        key: Any = None,
        cache: TTLCache[Any, V] | None = None,
    ) -> None:
        self._cache = cache
        self.key = key
        self.until = until
        self.last = last
        self.value = value
        self.group = group

    def is_good(self, now: float) -> bool:
        """Whether the value is good at that time of the clock."""
        return now < self.until or (now < self.last and self._cache is not None and self._cache.extend(self, now))

    def end(self) -> None:
        """The value is good no more."""
        self.until = self.last = -inf


class TTLCache(Generic[K, V]):
    """Keeps values for a while, each in a group; forgets the least recently used one beyond C{size}."""

    def __init__(self, clock: IReactorTime, ttl: float, size: int, lease: CacheLease | None = None) -> None:
        """
        @param ttl: Seconds for which a value is kept at most.
        @param lease: What else bounds their use; without one nothing does.
        """
        self._seconds = clock.seconds
        self._ttl = ttl
        self._size = size
        self._lease = lease or CacheLease()
        self._entries: OrderedDict[K, CacheEntry[V]] = OrderedDict()
        self._groups: dict[str, set[K]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K) -> V | None:
        entry = self.entry(key)
        return None if entry is None else entry.value

    def entry(self, key: K) -> CacheEntry[V] | None:
        """The value with how long it is good."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if not entry.is_good(self._seconds()):
            self.drop(key)
            return None
        self._entries.move_to_end(key)
        return entry

    def extend(self, entry: CacheEntry[V], now: float) -> bool:
        """Use an entry of this cache for as long as the lease says; false where that is over."""
        until = min(entry.last, self._lease.until)
        if until <= now:
            return False
        entry.until = until
        self._entries.move_to_end(entry.key)  # whoever has the entry does not ask the cache
        return True

    def put(self, key: K, value: V, asked_at: float, group: str = "", ttl: float | None = None) -> None:
        """Keep C{value}, which was true at C{asked_at}.

        @param ttl: Seconds for which it is kept at most; C{None}: those of all.
        """
        self.drop(key)
        last = asked_at + (self._ttl if ttl is None else ttl)
        until = min(last, asked_at + self._lease.seconds)
        self._entries[key] = CacheEntry(until, value, group, last, key, self)
        self._groups.setdefault(group, set()).add(key)
        if len(self._entries) > self._size:
            self.drop(next(iter(self._entries)))

    def drop(self, key: K) -> None:
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        entry.end()
        members = self._groups[entry.group]
        members.discard(key)
        if not members:
            del self._groups[entry.group]

    def drop_where(self, wanted: Callable[[V], bool]) -> None:
        """Forget every value for which this is true; looks at all of them."""
        for key in [key for key, entry in self._entries.items() if wanted(entry.value)]:
            self.drop(key)

    def clear(self) -> None:
        for entry in self._entries.values():
            entry.end()
        self._entries.clear()
        self._groups.clear()

    def drop_group(self, group: str) -> None:
        for key in self._groups.pop(group, ()):
            self._entries.pop(key).end()
