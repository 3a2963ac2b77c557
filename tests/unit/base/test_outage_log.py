from __future__ import annotations

from unittest import TestCase

from twisted.internet.task import Clock

from llmproxy.base.outage_log import OutageLog


class Case(TestCase):
    summarize = False

    def setUp(self) -> None:
        self.clock = Clock()
        self.said: list[object] = []
        self.log: OutageLog[str] = OutageLog(
            self.clock,
            lambda reason, count: self.said.append((reason, count)),
            on_recovery=lambda: self.said.append("recovered"),
            summarize=self.summarize,
        )


class OutageLogTests(Case):
    def test_once_a_minute(self) -> None:
        """The first failure is reported at once, those of the next minute with the first after it."""
        for _ in range(3):
            self.log.failed("a")
        self.clock.advance(59.9)
        self.log.failed("b")
        self.assertEqual(self.said, [("a", 1)])
        self.clock.advance(0.1)
        self.log.failed("c")
        self.assertEqual(self.said, [("a", 1), ("c", 4)])
        self.assertEqual(self.log.failures, 5)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_failure_of_its_own(self) -> None:
        """Is reported like one, and not counted."""
        self.log.failed("a", 0)
        self.assertEqual((self.said, self.log.failures), ([("a", 0)], 0))

    def test_recovery(self) -> None:
        """Is said once, and only after a failure was reported."""
        self.log.recovered()
        self.log.failed("a")
        self.log.recovered()
        self.log.recovered()
        self.log.failed("b")  # within the minute, so nobody hears of it
        self.log.recovered()
        self.assertEqual(self.said, [("a", 1), "recovered"])


class SummaryTests(Case):
    summarize = True

    def test_the_turn_and_the_minute(self) -> None:
        """What comes in one turn is one report; what comes later is reported when the minute is over."""
        self.log.failed("a", 2)
        self.log.failed("b")
        self.assertEqual(self.said, [])
        self.clock.advance(0)
        self.log.failed("c")
        self.clock.advance(59)
        self.assertEqual(self.said, [("b", 3)])
        self.clock.advance(1)
        self.assertEqual(self.said, [("b", 3), ("c", 1)])

    def test_close(self) -> None:
        """Reports the rest now, leaves no timer, and goes on without any."""
        self.log.failed("a")
        self.log.close()
        self.log.close()
        self.assertEqual((self.said, self.clock.getDelayedCalls()), ([("a", 1)], []))
        self.log.failed("b")
        self.assertEqual((self.said, self.clock.getDelayedCalls()), ([("a", 1)], []))
        self.clock.advance(60)
        self.log.failed("c")
        self.assertEqual(self.said, [("a", 1), ("c", 2)])
