"""Who takes enough of what waits for him, and who does not."""

from __future__ import annotations

from unittest import TestCase

from twisted.internet.task import Clock

from llmproxy.wire.server.slow_reader import SlowReaderGuard


class TakingTests(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.waiting = 0
        self.cut = 0
        self.taking = self.made(10.0)

    def made(self, seconds: float) -> SlowReaderGuard:
        return SlowReaderGuard(self.clock, seconds, 1000, lambda: self.waiting, self._too_slow)

    def _too_slow(self) -> None:
        self.cut += 1

    def wait(self, size: int) -> None:
        """So many bytes wait."""
        self.waiting = size
        self.taking.begin()

    def take(self, size: int, seconds: float) -> None:
        self.waiting -= size
        self.clock.advance(seconds)

    def test_nothing(self) -> None:
        self.wait(5000)
        self.clock.advance(9.9)
        self.assertEqual(self.cut, 0)
        self.clock.advance(0.1)
        self.assertEqual(self.cut, 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_little(self) -> None:
        self.wait(5000)
        for _ in range(9):
            self.take(111, 1)
        self.assertEqual(self.cut, 0)
        self.take(0, 1)
        self.assertEqual(self.cut, 1)

    def test_enough(self) -> None:
        self.wait(50_000)
        for _ in range(40):
            self.take(101, 1)
        self.assertEqual(self.cut, 0)
        for _ in range(10):
            self.take(99, 1)
        self.assertEqual(self.cut, 1)

    def test_all_of_it_in_small_helpings(self) -> None:
        """A small buffer is empty every now and then: that alone is no proof of anything."""
        for second in range(10):
            self.assertEqual(self.cut, 0)
            self.wait(90)
            self.take(90, 1)
            if second < 9:
                self.taking.end()
        self.assertEqual(self.cut, 1)

    def test_the_time_in_which_nothing_waits(self) -> None:
        for _ in range(9):
            self.wait(10)
            self.take(10, 1)
            self.taking.end()
            self.clock.advance(1000)
        self.assertEqual(self.cut, 0)

    def test_a_client_that_is_fast_in_between(self) -> None:
        self.wait(10)
        self.take(10, 9)
        self.taking.end()
        self.wait(2000)
        self.take(2000, 0.5)
        self.taking.end()
        self.wait(10)
        self.take(0, 9.5)
        self.assertEqual(self.cut, 0)

    def test_more_is_written_meanwhile(self) -> None:
        """By somebody who does not stop when he is told to: what is taken counts all the same."""
        self.wait(5000)
        for _ in range(20):
            self.waiting += 500
            self.taking.added(500)
            self.take(200, 1)
        self.assertEqual(self.cut, 0)

    def test_no_limit(self) -> None:
        self.taking = self.made(0.0)
        self.wait(5000)
        self.clock.advance(1e6)
        self.taking.end()
        self.assertEqual(self.cut, 0)

    def test_the_connection_ends(self) -> None:
        self.wait(5000)
        self.taking.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
