"""What a process allows while Redis is away."""

from __future__ import annotations

import unittest

from llmproxy.limits.counters.fallback import REMEMBERED, Shares
from llmproxy.model import Claim
from tests.unit.limits.counters.contract import budget, lease, rate

NOW = 1_700_000_000.0


class SharesTests(unittest.TestCase):
    def setUp(self) -> None:
        self.shares = Shares()
        self.shares.processes = 4

    def granted(self, *claims: Claim) -> int:
        """How many such requests are granted in a row."""
        for number in range(1000):
            if self.shares.reserve(claims, NOW).refused is not None:
                return number
        return 1000

    def test_closed(self) -> None:
        """Nothing passes, and it is said that it is not the limit that is used up."""
        verdict = self.shares.reserve([rate(5, on_loss="closed")], NOW)
        self.assertEqual((verdict.refused, verdict.lost, verdict.wait), (0, True, 1.0))

    def test_open(self) -> None:
        claims = [rate(1, on_loss="open"), lease(1, on_loss="open"), budget(1, 1, on_loss="open")]
        self.assertEqual(self.granted(*claims), 1000)

    def test_a_part_of_a_rate_and_of_leases(self) -> None:
        self.assertEqual(self.granted(rate(100, on_loss="local-share")), 25)
        self.assertEqual(self.granted(lease(9, on_loss="local-share")), 2)
        self.assertEqual(self.granted(lease(2, key="few", on_loss="local-share")), 1)

    def test_a_part_of_what_was_left_of_a_budget(self) -> None:
        """Of one that was never heard of nothing is known to be left."""
        self.shares.heard("budget:lifetime", 400)
        self.assertEqual(self.granted(budget(1000, 10, on_loss="local-share")), 10)
        verdict = self.shares.reserve([budget(1000, 10, on_loss="local-share")], NOW)
        self.assertTrue(verdict.lost)
        self.assertEqual(self.granted(budget(1000, 10, key="other", on_loss="local-share")), 0)

    def test_a_budget_of_which_nothing_is_left(self) -> None:
        """It refuses also who claims nothing of it."""
        self.shares.heard("budget:lifetime", 40)
        self.assertEqual(self.granted(budget(1000, 10, on_loss="local-share")), 1)
        self.assertEqual(self.granted(budget(1000, 0, on_loss="local-share")), 0)

    def test_settled(self) -> None:
        self.shares.heard("budget:lifetime", 400)
        claims = [lease(4, on_loss="local-share"), budget(1000, 50, on_loss="local-share")]
        for _ in range(5):
            verdict = self.shares.reserve(claims, NOW)
            self.assertIsNone(verdict.refused)
            self.shares.settle(verdict.ticket, [1, 10])
        self.assertEqual(self.granted(budget(1000, 10, on_loss="local-share")), 5)

    def test_heard_of_again(self) -> None:
        """When Redis is back it has been told, and what is left then is the measure."""
        self.shares.heard("budget:lifetime", 40)
        self.assertEqual(self.granted(budget(1000, 10, on_loss="local-share")), 1)
        self.shares.heard("budget:lifetime", 80)
        self.assertEqual(self.granted(budget(1000, 10, on_loss="local-share")), 2)

    def test_all_or_none(self) -> None:
        claims = [lease(4, on_loss="local-share"), budget(1000, 10, on_loss="local-share")]
        self.assertEqual(self.granted(*claims), 0)
        self.assertEqual(self.granted(lease(4, on_loss="local-share")), 1)

    def test_bounded(self) -> None:
        for number in range(REMEMBERED + 100):
            self.shares.heard(str(number), 1)
        self.assertEqual(len(self.shares._left), REMEMBERED)
