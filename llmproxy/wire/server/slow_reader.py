"""How fast a client takes what waits for it, and when that is too slow."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

from llmproxy.wire.deadline import Deadline, Deadlines


def nobody_waits() -> None:
    """What is called of a connection that is over: who is called else knows it, and would be left to the collector."""


class SlowReaderGuard:
    """Calls C{too_slow} where something waited for C{seconds}, and less than C{least} bytes were taken in that time.

    Only the time in which something waits counts: a client that has taken all there was is never too slow, however
    little that was. What is taken is what leaves the system's socket: a large buffer there gives no other sign for
    minutes.
    """

    __slots__ = (
        "_before",
        "_clock",
        "_deadline",
        "_least",
        "_seconds",
        "_since",
        "_taken",
        "_too_slow",
        "_untaken",
        "_waited",
    )

    def __init__(
        self,
        clock: IReactorTime,
        seconds: float,
        least: int,
        unacknowledged_bytes: Callable[[], int],
        too_slow: Callable[[], None],
    ) -> None:
        """
        @param seconds: C{0}: no limit.
        @param unacknowledged_bytes: Gives how many bytes wait now.
        """
        self._clock = clock
        self._seconds = seconds
        self._least = least
        self._untaken = unacknowledged_bytes
        self._too_slow = too_slow
        self._deadline = Deadline(Deadlines(clock), self._look)
        self._before = self._taken = 0
        self._since = self._waited = 0.0

    def begin(self) -> None:
        """Something waits from now on."""
        if self._seconds:
            self._since = self._clock.seconds()
            self._before = self._untaken()
            self._deadline.set(self._seconds - self._waited)

    def added(self, size: int) -> None:
        """So many bytes more wait."""
        self._before += size

    def end(self) -> None:
        """Nothing waits any more."""
        if self._seconds:
            self._deadline.clear()
            self._waited = min(self._waited + self._clock.seconds() - self._since, self._seconds)
            self.goes_on()

    def stop(self) -> None:
        """The connection is over."""
        self._deadline.stop()
        self._too_slow = nobody_waits

    def goes_on(self) -> bool:
        """Whether enough has been taken; if so, time and bytes count anew from here."""
        left = self._untaken()
        self._taken += self._before - left
        self._before = left
        if self._taken < self._least:
            return False
        self._taken, self._waited = 0, 0.0
        return True

    def _look(self) -> None:
        if self.goes_on():
            self.begin()
        else:
            self._too_slow()
