"""Waiting for a quiet machine has an end."""

from __future__ import annotations

import unittest

from tests.support.quiet import RUN_SECONDS, SAMPLE_SECONDS, TEST_SECONDS, QuietMachine, idle_part


class QuietTests(unittest.TestCase):
    def setUp(self) -> None:
        self.now = 0.0
        self.idle = [0.0]

    def look(self, seconds: float) -> float:
        self.now += seconds
        return self.idle.pop(0) if len(self.idle) > 1 else self.idle[0]

    def machine(self) -> QuietMachine:
        return QuietMachine(self.look, lambda: self.now)

    def test_it_becomes_quiet(self) -> None:
        self.idle = [0.1, 0.2, 0.9]
        self.assertEqual(self.machine().wait(), "")
        self.assertAlmostEqual(self.now, 3 * SAMPLE_SECONDS)

    def test_it_stays_busy(self) -> None:
        """One test waits for its time, all of them together for theirs; then they run, and say how it was."""
        machine = self.machine()
        self.assertIn("busy", machine.wait())
        self.assertAlmostEqual(self.now, TEST_SECONDS, delta=1)
        for _ in range(20):
            machine.wait()
        self.assertAlmostEqual(self.now, RUN_SECONDS, delta=12)

    def test_this_machine(self) -> None:
        self.assertTrue(0.0 <= idle_part(0.05) <= 1.0)
