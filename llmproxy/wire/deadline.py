"""A point in time that moves with every message, without a timer being touched each time."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime


class Deadline:
    """Calls C{expired} once the time that was last set has come.

    A timer that fires early finds a later time, or none, and is set again or left: one timer a minute for a busy
    connection instead of one for every request.
    """

    __slots__ = ("_at", "_clock", "_expired", "_timer")

    def __init__(self, clock: IReactorTime, expired: Callable[[], None]) -> None:
        self._clock = clock
        self._expired = expired
        self._at: float | None = None
        self._timer: IDelayedCall | None = None

    def set(self, seconds: float) -> None:
        """So many seconds from now, whatever was set before."""
        self._at = at = self._clock.seconds() + seconds
        if self._timer is None:
            self._timer = self._clock.callLater(seconds, self._fire)
        elif self._timer.getTime() > at:
            # Not reset(): for that Twisted looks through all timers there are.
            self._timer.cancel()
            self._timer = self._clock.callLater(seconds, self._fire)

    def clear(self) -> None:
        """Never, until it is set again."""
        self._at = None

    def stop(self) -> None:
        """Never, and leave no timer behind."""
        self._at = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        self._timer = None
        if self._at is None:
            return
        left = self._at - self._clock.seconds()
        if left > 0:
            self._timer = self._clock.callLater(left, self._fire)
            return
        self._at = None
        self._expired()
