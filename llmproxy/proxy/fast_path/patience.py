"""Waits for what is on its way, as long as it goes on, and not for long."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime

PATIENCE_SECONDS = 0.05  # of silence; then it is left to the pipeline, which streams it as any other
MAX_LOOKS = 20  # how often that is looked at, so that nothing is waited for for longer than a second
_NEW = -1  # bytes of what came after the last look

T = TypeVar("T")


class Patience(Generic[T]):
    """Waits, with one timer for all."""

    def __init__(self, clock: IReactorTime, size_of: Callable[[T], int], give_up: Callable[[T], object]) -> None:
        """
        @param size_of: Gives how many bytes of something have come.
        @param give_up: Called with what is not waited for any longer.
        """
        self._clock = clock
        self._size_of = size_of
        self._give_up = give_up
        self._waiting: dict[T, tuple[int, int]] = {}  # bytes at the last look, and how many looks there were
        self._timer: IDelayedCall | None = None

    def wait(self, item: T) -> None:
        """Wait for it until L{leave}."""
        seen = _NEW
        if self._timer is None:
            seen = self._size_of(item)
            self._timer = self._clock.callLater(PATIENCE_SECONDS, self._look)
        self._waiting[item] = (seen, 0)

    def leave(self, item: T) -> bool:
        """It is not waited for any longer: whether it was."""
        return self._waiting.pop(item, None) is not None

    def _look(self) -> None:
        self._timer, late = None, []
        for item, (before, looks) in list(self._waiting.items()):
            seen, more = self._size_of(item), before != _NEW
            self._waiting[item] = (seen, looks + more)
            if more and (looks + 1 >= MAX_LOOKS or seen == before):
                late.append(item)
        if late:  # under load they may be there, and just not have been read
            self._clock.callLater(0, self._give_up_all, late)
        if self._waiting:
            self._timer = self._clock.callLater(PATIENCE_SECONDS, self._look)

    def _give_up_all(self, late: list[T]) -> None:
        for item in late:
            if self.leave(item):
                self._give_up(item)

    def close(self) -> None:
        """Leave no timer behind, unless something is still waited for."""
        if self._timer is not None and not self._waiting:
            self._timer.cancel()
            self._timer = None
