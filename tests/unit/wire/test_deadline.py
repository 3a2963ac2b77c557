"""A deadline that moves."""

from __future__ import annotations

from unittest import TestCase

from twisted.internet.task import Clock

from llmproxy.wire.deadline import Deadline


class Deadlines(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.expired: list[float] = []
        self.deadline = Deadline(self.clock, lambda: self.expired.append(self.clock.seconds()))

    def test_it_expires_once(self) -> None:
        self.deadline.set(5)
        self.clock.pump([1] * 20)
        self.assertEqual(self.expired, [5])

    def test_later(self) -> None:
        self.deadline.set(5)
        self.clock.advance(3)
        self.deadline.set(5)
        self.clock.pump([1] * 20)
        self.assertEqual(self.expired, [8])

    def test_sooner(self) -> None:
        self.deadline.set(50)
        self.deadline.set(5)
        self.clock.pump([1] * 60)
        self.assertEqual(self.expired, [5])

    def test_sooner_moves_no_timer(self) -> None:
        """Twisted looks through all timers for one that is to be moved forward: with many connections, for ever."""
        self.deadline.set(50)
        (first,) = self.clock.getDelayedCalls()
        self.deadline.set(5)
        (second,) = self.clock.getDelayedCalls()
        self.assertIsNot(first, second)

    def test_never(self) -> None:
        self.deadline.set(5)
        self.deadline.clear()
        self.clock.pump([1] * 20)
        self.assertEqual(self.expired, [])

    def test_setting_it_for_every_message_makes_one_timer(self) -> None:
        for _ in range(1000):
            self.deadline.set(75)
            self.deadline.clear()
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_stopping_leaves_nothing_behind(self) -> None:
        self.deadline.set(5)
        self.deadline.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
