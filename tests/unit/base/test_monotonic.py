"""A reactor that waits by the monotonic clock."""

from __future__ import annotations

import unittest

from twisted.internet.base import ReactorBase
from twisted.internet.task import Clock

from llmproxy.base.monotonic import use_monotonic_clock


class _Reactor(ReactorBase):
    """One that waits for nothing but its timers."""

    def installWaker(self) -> None:
        """Nobody wakes it."""


class KeepSteadyTests(unittest.TestCase):
    def setUp(self) -> None:
        self.at = 100.0
        self.fired: list[str] = []
        self.reactor = _Reactor()

    def run_until(self, at: float) -> None:
        self.at = at
        self.reactor.runUntilCurrent()

    def test_timers_count_by_it(self) -> None:
        """One that is set afterwards fires when that clock says so."""
        use_monotonic_clock(self.reactor, lambda: self.at)
        self.assertEqual(self.reactor.seconds(), 100.0)
        self.reactor.callLater(5.0, self.fired.append, "later")
        self.assertEqual(self.reactor.timeout(), 5.0)
        self.run_until(104.9)
        self.assertEqual(self.fired, [])
        self.run_until(105.0)
        self.assertEqual(self.fired, ["later"])

    def test_what_waits_already_keeps_the_rest_of_its_time(self) -> None:
        """Its time was set by the other clock, by which it would be far in the future."""
        self.reactor.callLater(5.0, self.fired.append, "earlier")
        use_monotonic_clock(self.reactor, lambda: self.at)
        self.run_until(104.0)
        self.assertEqual(self.fired, [])
        self.run_until(105.1)
        self.assertEqual(self.fired, ["earlier"])

    def test_a_fake_is_left_alone(self) -> None:
        """Tests bring clocks of their own."""
        clock = Clock()
        use_monotonic_clock(clock, lambda: self.at)
        self.assertEqual(clock.seconds(), 0.0)
