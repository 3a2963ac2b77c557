"""Values that are kept for a while, within bounds."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from twisted.internet.interfaces import IReactorTime

K = TypeVar("K")
V = TypeVar("V")


class TTLCache(Generic[K, V]):
    """Keeps values for a while, each in a group; forgets the least recently used one beyond C{size}."""

    def __init__(self, clock: IReactorTime, ttl: float, size: int) -> None:
        self._seconds = clock.seconds
        self._ttl = ttl
        self._size = size
        self._entries: OrderedDict[K, tuple[float, V, str]] = OrderedDict()
        self._groups: dict[str, set[K]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K) -> V | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry[0] <= self._seconds():
            self.drop(key)
            return None
        self._entries.move_to_end(key)
        return entry[1]

    def put(self, key: K, value: V, asked_at: float, group: str = "") -> None:
        """Keep C{value}, which was true at C{asked_at}."""
        self.drop(key)
        self._entries[key] = (asked_at + self._ttl, value, group)
        self._groups.setdefault(group, set()).add(key)
        if len(self._entries) > self._size:
            self.drop(next(iter(self._entries)))

    def drop(self, key: K) -> None:
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        members = self._groups[entry[2]]
        members.discard(key)
        if not members:
            del self._groups[entry[2]]

    def drop_where(self, wanted: Callable[[V], bool]) -> None:
        """Forget every value for which this is true; looks at all of them."""
        for key in [key for key, (_, value, _) in self._entries.items() if wanted(value)]:
            self.drop(key)

    def clear(self) -> None:
        self._entries.clear()
        self._groups.clear()

    def drop_group(self, group: str) -> None:
        for key in self._groups.pop(group, ()):
            del self._entries[key]
