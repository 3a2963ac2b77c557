"""Values that are kept for a while, within bounds."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from math import inf
from typing import Generic, TypeVar

from twisted.internet.interfaces import IReactorTime

K = TypeVar("K")
V = TypeVar("V")


class CacheEntry(Generic[V]):
    """A value that is kept; whoever has the entry need not ask the cache.

    @ivar until: The value is good before that time of the clock: before none, once it was dropped or replaced.
    @ivar group: That which it is in.
    """

    __slots__ = ("group", "until", "value")

    def __init__(self, until: float, value: V, group: str) -> None:
        self.until = until
        self.value = value
        self.group = group


class TTLCache(Generic[K, V]):
    """Keeps values for a while, each in a group; forgets the least recently used one beyond C{size}."""

    def __init__(self, clock: IReactorTime, ttl: float, size: int) -> None:
        self._seconds = clock.seconds
        self._ttl = ttl
        self._size = size
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
        if entry.until <= self._seconds():
            self.drop(key)
            return None
        self._entries.move_to_end(key)
        return entry

    def put(self, key: K, value: V, asked_at: float, group: str = "") -> None:
        """Keep C{value}, which was true at C{asked_at}."""
        self.drop(key)
        self._entries[key] = CacheEntry(asked_at + self._ttl, value, group)
        self._groups.setdefault(group, set()).add(key)
        if len(self._entries) > self._size:
            self.drop(next(iter(self._entries)))

    def drop(self, key: K) -> None:
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        entry.until = -inf
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
            entry.until = -inf
        self._entries.clear()
        self._groups.clear()

    def drop_group(self, group: str) -> None:
        for key in self._groups.pop(group, ()):
            self._entries.pop(key).until = -inf
