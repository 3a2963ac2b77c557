"""How often tokens were used, counted here and handed over in batches."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from itertools import islice

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from llmproxy.base.coroutines import FairLock, as_deferred, deferred, within
from llmproxy.errors import StoreUnavailable

TURN_SECONDS = 30.0  # for which a flush waits for the one before it

Take = Callable[[Mapping[str, tuple[int, float]]], Awaitable[None]]


class UseCounter:
    """Adds up how often tokens were used, and hands that to the store in batches.

    What the store does not take is kept and handed over again. A batch without a reply may have been taken, so in an
    outage these counts can come out too high, never too low.
    """

    _log = Logger()
    _BATCH = 500

    def __init__(self, take: Take, clock: IReactorTime, now: Callable[[], float], timeout: float, limit: int) -> None:
        """
        @param take: The store's method that adds to its counts.
        """
        self._take = take
        self._clock = clock
        self._now = now
        self._timeout = timeout
        self._limit = limit
        self._turns = FairLock()
        self._counts: dict[str, tuple[int, float]] = {}
        self.dropped = 0

    def count(self, token_id: str) -> None:
        self._add(token_id, 1, self._now())

    def take_back(self, token_id: str) -> None:
        """One use less."""
        self._add(token_id, -1, 0.0)

    def _add(self, token_id: str, more: int, at: float) -> None:
        known = self._counts.get(token_id)
        if known is not None:
            self._counts[token_id] = (known[0] + more, max(known[1], at))
        elif len(self._counts) < self._limit:
            self._counts[token_id] = (more, at)
        else:
            self.dropped += more

    @property
    def pending(self) -> int:
        """How many uses are not in the store yet."""
        return sum(more for more, _ in self._counts.values())

    @deferred
    async def flush(self) -> None:
        """Hand over what was counted so far; never fails."""
        try:
            async with self._turns.within(TURN_SECONDS, self._clock, StoreUnavailable()):
                await self._hand_over()
        except StoreUnavailable:  # the batches of another flush still wait for the store; what is counted stays
            return

    async def _hand_over(self) -> None:
        # Only what was there at first: under load there is always more, and this would never end.
        counted, self._counts = self._counts, {}
        try:
            while batch := dict(islice(counted.items(), self._BATCH)):
                for token_id in batch:
                    del counted[token_id]
                if not await self._taken(batch):
                    return
        finally:
            for token_id, (more, at) in counted.items():
                self._add(token_id, more, at)

    async def _taken(self, batch: dict[str, tuple[int, float]]) -> bool:
        try:
            await within(self._timeout, self._clock, as_deferred(self._take(batch)), StoreUnavailable())
        except Exception as e:
            for token_id, (more, at) in batch.items():
                if more > 0:  # what was to be taken back may have been: not twice, so that no limit is exceeded
                    self._add(token_id, more, at)
            if isinstance(e, CancelledError):
                raise
            self._log.warn(
                "The uses of {tokens} tokens could not be stored yet: {error}", tokens=len(batch), error=str(e)
            )
            return False
        return True
