from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.observability.clock_steps import SHOWN_SECONDS, ClockSteps


class Steps(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.ahead = 1_700_000_000.0
        self.steps = ClockSteps(self.clock, lambda: self.clock.seconds() + self.ahead, lambda: False)
        self.steps.startService()
        self.addCleanup(self.steps.stopService)

    def figures(self) -> dict[str, Any]:
        return {each.name: each.read() for each in self.steps.instruments()}

    def test_nobody_sets_it(self) -> None:
        """One that is slewed, or looked at late, was not set."""
        for pause in (1.0, 7.0, 30.0, 1.0):
            self.ahead += 0.4
            self.clock.advance(pause)
        self.assertEqual((self.steps.state, self.figures()["clock_steps"]), ("ok", 0))

    def test_set(self) -> None:
        """Said for a minute; what was is not forgotten by the metrics."""
        self.ahead += 3600.0
        self.clock.advance(1.0)
        self.assertEqual(self.steps.state, "set forward by 3600 s")
        self.ahead -= 3630.0
        self.clock.advance(1.0)
        self.assertEqual(self.steps.state, "set back by 3630 s")
        self.assertEqual(self.figures(), {"clock_steps": 2, "clock_step_seconds": -30.0})
        self.clock.pump([1.0] * int(SHOWN_SECONDS))
        self.assertEqual(self.steps.state, "ok")
