"""Reports of something that keeps failing, without filling the log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime

R = TypeVar("R")

INTERVAL_SECONDS = 60.0  # between two reports of the same thing


class OutageLog(Generic[R]):
    """Reports the first failure, then at most one each minute; says once that it works again.

    @ivar failures: How many there were since the start.
    """

    def __init__(
        self,
        clock: IReactorTime,
        report: Callable[[R, int], object],
        *,
        on_recovery: Callable[[], object] = lambda: None,
        summarize: bool = False,
        interval: float = INTERVAL_SECONDS,
    ) -> None:
        """
        @param report: Called with the latest reason, and with how many failures there were since the last report.
        @param on_recovery: Called when it works again, if a failure was reported before.
        @param summarize: Failures of one turn of the reactor are reported together, and those that come within the
            minute at its end; without it, they are only counted.
        """
        self.failures = 0
        self._clock = clock
        self._report = report
        self._on_recovery = on_recovery
        self._summarize = summarize
        self._interval = interval
        self._next = float("-inf")
        self._count = 0
        self._latest: R
        self._timer: IDelayedCall | None = None
        self._closed = self._failing = False

    def failed(self, reason: R, count: int = 1) -> None:
        """Count so many failures, and report them where that is due.

        @param count: 0 for what is to be reported and is no failure of its own.
        """
        self.failures += count
        self._count += count
        wait = max(self._next - self._clock.seconds(), 0.0)
        if self._summarize and not self._closed:
            self._latest = reason
            self._timer = self._timer or self._clock.callLater(wait, self._summary)
        elif not wait:
            self._reported(reason)

    def recovered(self) -> None:
        """It works again."""
        if self._failing:
            self._failing = False
            self._on_recovery()

    def close(self) -> None:
        """Report what was not reported yet, and leave no timer behind."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._summary()

    def _summary(self) -> None:
        self._timer = None
        self._reported(self._latest)

    def _reported(self, reason: R) -> None:
        self._next, self._failing = self._clock.seconds() + self._interval, True
        count, self._count = self._count, 0
        self._report(reason, count)
