"""Removals that Redis has not carried out yet: nothing of what they concern is read until it has."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from llmproxy.base.background import Loop
from llmproxy.instruments import Counter, Gauge, Instrument
from llmproxy.redis import RedisUnavailable

RETRY_INTERVAL_SECONDS = 0.5
MAX_UNDONE_REMOVALS = 10_000  # keys
BATCH_KEYS = 100  # that are removed with one command


class _Removal:
    """One that was begun. C{failed}: it is not known to be done."""

    __slots__ = ("failed",)

    def __init__(self) -> None:
        self.failed = False


class UndoneRemovals:
    """Removes keys, and tries again what fails.

    @ivar delayed: How many failed at first.
    @ivar task: Tries them again.
    """

    _log = Logger()

    def __init__(
        self,
        remove: Callable[[Sequence[str]], Awaitable[int]],
        remove_all: Callable[[], Awaitable[int]],
        clock: IReactorTime,
        limit: int = MAX_UNDONE_REMOVALS,
    ) -> None:
        """
        @param remove: Removes these keys, and says how many there were; L{RedisUnavailable} where that is not known.
        @param limit: Keys that are remembered; beyond them all is removed.
        """
        self.delayed = 0
        self._remove = remove
        self._remove_all = remove_all
        self._limit = limit
        self._begun: dict[str, _Removal] = {}  # the last one of each key
        self._everything: _Removal | None = None
        self.task = Loop("cache", self._retry, RETRY_INTERVAL_SECONDS, clock)

    def instruments(self) -> Iterator[Instrument]:
        yield Counter("cache_removals_delayed", "Removals that Redis did not do at once.", lambda: self.delayed)
        yield Gauge("cache_removals_pending", "Removals that Redis has yet to do.", lambda: self.pending)

    @property
    def pending(self) -> int:
        """How many have failed and are not done yet; C{limit} also where there are more."""
        if self._everything is not None:
            return self._limit
        return sum(removal.failed for removal in self._begun.values())

    def cover(self, key: str) -> bool:
        """Whether what stands under the key may have been removed."""
        return key in self._begun or self._everything is not None

    async def remove(self, key: str) -> bool:
        """Remove it, now or once that is possible; whether there was something to remove now."""
        removal = self._begun[key] = _Removal()
        try:
            removed = await self._remove([key])
        except RedisUnavailable:
            self._failed(removal)
            return False
        self._done(key, removal)
        return bool(removed)

    def _failed(self, removal: _Removal) -> None:
        removal.failed = True
        self.delayed += 1
        if len(self._begun) > self._limit:
            if self._everything is None:
                self._log.warn("Redis has too many removals to do: once it can be used, the cache is emptied.")
            self._everything = _Removal()
            self._begun.clear()

    def _done(self, key: str, removal: _Removal) -> None:
        if self._begun.get(key) is removal:  # a later one of this key would speak for this one too
            del self._begun[key]

    async def _retry(self) -> None:
        failed = [(key, removal) for key, removal in self._begun.items() if removal.failed]
        everything = self._everything
        try:
            if everything is not None:
                await self._remove_all()
                if self._everything is everything:
                    self._everything = None
            for start in range(0, len(failed), BATCH_KEYS):
                batch = failed[start : start + BATCH_KEYS]
                await self._remove([key for key, _ in batch])
                for key, removal in batch:
                    self._done(key, removal)
        except RedisUnavailable:
            pass  # it is known to be away, and is asked again
