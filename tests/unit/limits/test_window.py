"""A window holds no more than its limit in any sixty seconds, and gives back what it must."""

from __future__ import annotations

import unittest
from collections import deque

from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxy.limits.window import SLOTS_PER_SECOND, WINDOW_SLOTS, Window

steps = st.lists(st.tuples(st.floats(0, 40), st.integers(1, 30)), max_size=120)


class Log:
    """The definition itself: every use with its time, none forgotten before a minute is over."""

    def __init__(self, kept: float = 60.0) -> None:
        self.kept = kept
        self.uses: deque[tuple[float, int]] = deque()
        self.total = 0

    def usage(self, now: float) -> int:
        while self.uses and self.uses[0][0] <= now - self.kept:
            self.total -= self.uses.popleft()[1]
        return self.total

    def add(self, amount: int, now: float) -> None:
        self.uses.append((now, amount))
        self.total += amount


class WindowTests(unittest.TestCase):
    @given(steps)
    @settings(deadline=None)
    def test_between_a_minute_and_a_tenth_of_a_second_more(self, uses: list[tuple[float, int]]) -> None:
        """What was used counts for a minute at least, and for 60.1 seconds at most."""
        window, least, most, now = Window(), Log(), Log(60.0 + 1 / SLOTS_PER_SECOND + 1e-6), 1_700_000_000.0
        for pause, amount in uses:
            now += pause
            self.assertLessEqual(least.usage(now), window.usage(now))
            self.assertLessEqual(window.usage(now), most.usage(now))
            for log in (window, least, most):
                log.add(amount, now)

    @given(steps, st.integers(1, 100))
    @settings(deadline=None)
    def test_the_wait_is_exact(self, uses: list[tuple[float, int]], limit: int) -> None:
        """After the time that a refused client is told to wait there is room, and a moment before there is none."""
        window, now = Window(), 1_700_000_000.0
        for pause, amount in uses:
            now += pause
            wait = window.wait(min(amount, limit), limit, now)
            if wait:
                self.assertGreater(window.usage(now + wait - 0.001) + min(amount, limit), limit)
                now += wait + 0.001
            self.assertLessEqual(window.usage(now) + min(amount, limit), limit)
            window.add(min(amount, limit), now)

    def run_at(self, limit: int, rate: float, seconds: float) -> None:
        """So many requests a second: at any point the last minute holds no more than the limit, and in all as many were
        let through as by the definition, within 2 %.
        """
        window, log, exact = Window(), Log(), Log()
        accepted = allowed = 0
        start = 1_700_000_000.03
        for number in range(int(rate * seconds)):
            now = start + number / rate
            if window.usage(now) < limit:
                window.add(1, now)
                log.add(1, now)
                accepted += 1
            if exact.usage(now) < limit:
                exact.add(1, now)
                allowed += 1
            self.assertLessEqual(log.usage(now), limit)
            self.assertLessEqual(abs(accepted - allowed), 0.02 * allowed, now - start)

    def test_sixty_a_minute_at_five_a_second(self) -> None:
        self.run_at(60, 5, 600)

    def test_a_thousand_a_minute_at_fifty_a_second(self) -> None:
        self.run_at(1000, 50, 300)

    def test_just_above_the_rate(self) -> None:
        self.run_at(60, 1.01, 1200)

    def test_corrected(self) -> None:
        """A request that took less than it claimed makes room at once; one out of the window changes nothing."""
        window = Window()
        slot = window.add(100, 0.0)
        window.correct(slot, -90)
        self.assertEqual(window.usage(1.0), 10)
        self.assertEqual(window.usage(61.0), 0)
        window.correct(slot, 50)
        self.assertEqual(window.usage(61.0), 0)

    def test_bounded(self) -> None:
        """However many requests there are, it holds a number for each tenth of a second and no more."""
        window = Window()
        for number in range(100_000):
            window.usage(number * 0.01)
            window.add(1, number * 0.01)
        self.assertLessEqual(len(window.slots), WINDOW_SLOTS + 1)
        self.assertEqual(window.usage(1000.0), sum(window.slots.values()))

    def test_a_clock_that_is_set_back(self) -> None:
        """A little: it stands still until time has caught up. Far: it begins anew, and nobody is shut out for hours."""
        window = Window()
        window.add(60, 10_000.0)
        self.assertEqual(window.usage(9_990.0), 60)
        window.add(1, 9_990.0)
        self.assertEqual(window.usage(10_060.0), 61)
        self.assertEqual(window.usage(1_000.0), 0)

    def test_reset(self) -> None:
        window = Window()
        self.assertEqual(window.reset(5.0), 0.0)
        window.add(1, 5.0)
        self.assertAlmostEqual(window.reset(5.0), 60.1)
        self.assertAlmostEqual(window.reset(35.0), 30.1)
