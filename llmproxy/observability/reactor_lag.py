"""Measures how late the reactor is: how long something held it while something else was due."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

from llmproxy.instruments import Gauge, Instrument
from llmproxy.interfaces import IInstrumented

START_SECONDS = 2.0  # after which looking begins: a start takes as long as it takes
TICK_SECONDS = 0.05  # a stall is seen if it lasts when a tick is due; one of the length of a tick always is


@implementer(IInstrumented)
class ReactorLag(Service):
    """Asks to be called at even times, and tells how late each call came.

    @ivar longest: The latest that one came, in seconds.
    """

    name = "reactor lag"

    def __init__(self, clock: IReactorTime, observe: Callable[[float], object]) -> None:
        """
        @param observe: Called with how many seconds late a call came.
        """
        self._clock = clock
        self._observe = observe
        self._call: IDelayedCall | None = None
        self.longest = 0.0

    def instruments(self) -> Iterator[Instrument]:
        yield Gauge(
            "reactor_lag_longest_seconds", "The latest that the reactor ever was.", lambda: self.longest, across="max"
        )

    def startService(self) -> None:
        Service.startService(self)
        self._call = self._clock.callLater(START_SECONDS, self._next)

    def stopService(self) -> None:
        Service.stopService(self)
        if self._call is not None and self._call.active():
            self._call.cancel()

    def _next(self) -> None:
        due = self._clock.seconds() + TICK_SECONDS
        self._call = self._clock.callLater(TICK_SECONDS, self._tick, due)

    def _tick(self, due: float) -> None:
        late = max(self._clock.seconds() - due, 0.0)
        self._observe(late)
        self.longest = max(self.longest, late)
        self._next()
