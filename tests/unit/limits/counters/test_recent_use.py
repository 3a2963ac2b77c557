"""What this process has used of rates in the last minute."""

from __future__ import annotations

import unittest

from llmproxy.limits.counters.recent_use import RecentUse

SLOT = 17_000_000_000


class RecentUseTests(unittest.TestCase):
    def setUp(self) -> None:
        self.recent = RecentUse()
        self.recent.add("k", "1", SLOT, 5)
        self.recent.add("k", "1", SLOT + 3, 2)

    def test_remembered(self) -> None:
        self.assertEqual(self.recent.slots("k"), f"{SLOT}:5,{SLOT + 3}:2")
        self.assertEqual((self.recent.generation("k", SLOT + 3), self.recent.generation("x", SLOT)), ("1", ""))
        self.assertEqual(self.recent.slots("x"), "")

    def test_a_minute_later(self) -> None:
        """What counts no more is no reason to put anything back."""
        self.assertEqual(self.recent.generation("k", SLOT + 603), "1")
        self.assertEqual(self.recent.slots("k"), f"{SLOT + 3}:2")
        self.assertEqual(self.recent.generation("k", SLOT + 604), "")
        self.assertEqual((self.recent.keys(SLOT + 604), len(self.recent)), ([], 0))

    def test_settled(self) -> None:
        self.recent.correct("k", SLOT, -5)
        self.recent.correct("k", SLOT - 1, 9)
        self.recent.correct("x", SLOT, 9)
        self.assertEqual(self.recent.slots("k"), f"{SLOT}:0,{SLOT + 3}:2")
        self.recent.correct("k", SLOT + 3, -2)
        self.assertEqual((self.recent.generation("k", SLOT + 3), self.recent.last_generation("k")), ("", "1"))

    def test_put_back(self) -> None:
        self.recent.set_generation("k", "2")
        self.recent.set_generation("x", "2")
        self.assertEqual((self.recent.generation("k", SLOT + 3), self.recent.last_generation("x")), ("2", ""))
        self.assertEqual(self.recent.keys(SLOT + 3), ["k"])
