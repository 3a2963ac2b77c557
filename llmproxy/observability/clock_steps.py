"""Notices when somebody sets the clock of this machine: all that has a date goes by what it says then."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from twisted.application.service import Service
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from llmproxy.base.background import Loop
from llmproxy.instruments import Counter, Gauge, HealthCheck, Instrument
from llmproxy.interfaces import IHealthChecked, IInstrumented

LOOK_SECONDS = 1.0
MIN_STEP_SECONDS = 1.0  # what is less may be a clock that is slewed (by half a millisecond in a second at most)
SHOWN_SECONDS = 60.0  # for which the ready page tells of a step


@implementer(IHealthChecked, IInstrumented)
class ClockSteps(Service):
    """Compares the wall clock with the monotonic one, once a second.

    A machine that was asleep looks like one whose clock was set forward: the monotonic clock of Linux stands still
    meanwhile.
    """

    name: Any = "clock steps"
    _log = Logger()

    def __init__(self, clock: IReactorTime, now: Callable[[], float], logs: Callable[[], bool] = lambda: True) -> None:
        """
        @param clock: Monotonic.
        @param now: Seconds since the epoch.
        @param logs: Whether this is the process that tells of it for all on this machine.
        """
        self._clock = clock
        self._now = now
        self._logs = logs
        self._ahead = self._difference()
        self._last = self._total = 0.0
        self._steps = 0
        self._shown_until = float("-inf")
        self._looking = Loop("clock", self.look, LOOK_SECONDS, clock)
        self.tasks = (self._looking,)

    def startService(self) -> None:
        Service.startService(self)
        self._looking.start()

    def stopService(self) -> None:
        Service.stopService(self)
        self._looking.stop()

    def look(self) -> None:
        """Look whether the difference of the two clocks is another than it was."""
        ahead = self._difference()
        step, self._ahead = ahead - self._ahead, ahead
        if abs(step) < MIN_STEP_SECONDS:
            return
        self._steps += 1
        self._last, self._total = step, self._total + step
        self._shown_until = self._clock.seconds() + SHOWN_SECONDS
        if self._logs():
            self._log.warn(
                "The clock of this machine was {step}: tokens expire, and budgets and limits by day, week and month "
                "begin anew, by what it says now. Nothing that waits has noticed.",
                step=self._text(),
            )

    @property
    def state(self) -> str:
        """C{ok}, or for a minute how the clock was set."""
        return "ok" if self._clock.seconds() >= self._shown_until else self._text()

    def health_checks(self) -> Iterator[HealthCheck]:
        yield HealthCheck("clock", lambda: self.state)

    def instruments(self) -> Iterator[Instrument]:
        yield Counter("clock_steps", "Times that the clock of this machine was set.", lambda: self._steps, across="max")
        yield Gauge(
            "clock_step_seconds",
            "By how much the clock was set in all since the start; less than 0: back.",
            lambda: round(self._total, 3),
            across="max",
        )

    def _difference(self) -> float:
        return self._now() - self._clock.seconds()

    def _text(self) -> str:
        return f"set {'forward' if self._last > 0 else 'back'} by {abs(self._last):.0f} s"
