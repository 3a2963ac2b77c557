"""How late the reactor is."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.observability.reactor_lag import START_SECONDS, TICK_SECONDS, ReactorLag


class LagTests(SynchronousTestCase):
    def test_late_calls(self) -> None:
        clock, seen = Clock(), list[float]()
        lag = ReactorLag(clock, seen.append)
        lag.startService()
        clock.advance(START_SECONDS + 1)
        clock.advance(TICK_SECONDS)
        clock.advance(TICK_SECONDS + 0.25)
        clock.advance(TICK_SECONDS)
        self.assertEqual([round(each, 6) for each in seen], [0, 0.25, 0])
        self.assertAlmostEqual(lag.longest, 0.25)

    def test_stopped(self) -> None:
        """Nothing is left to be called."""
        clock = Clock()
        lag = ReactorLag(clock, lambda late: None)
        lag.startService()
        lag.stopService()
        self.assertEqual(clock.getDelayedCalls(), [])
