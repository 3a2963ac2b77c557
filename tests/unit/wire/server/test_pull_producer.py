"""A producer that must be asked."""

from __future__ import annotations

from collections.abc import Callable
from unittest import TestCase

from twisted.internet.task import Clock

from llmproxy.wire.server.pull_producer import PullToPush
from tests.unit.wire.serving import Producer


class Asked(Producer):
    """Does C{ask} whenever it is asked."""

    ask: Callable[[], object]

    def resumeProducing(self) -> None:
        super().resumeProducing()
        self.ask()


class Pulling(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.producer = Asked()
        self.pulled = PullToPush(self.producer, self.clock)

    def test_it_is_asked_once_in_a_turn(self) -> None:
        self.producer.ask = lambda: len(self.producer.told) < 3 or self.pulled.pauseProducing()
        self.clock.advance(0)
        self.assertEqual(self.producer.told, ["resume"] * 3)

    def test_it_is_not_asked_while_paused(self) -> None:
        self.producer.ask = self.pulled.pauseProducing
        self.pulled.pauseProducing()
        self.clock.advance(0)
        self.assertEqual(self.producer.told, [])
        self.pulled.resumeProducing()
        self.pulled.resumeProducing()
        self.clock.advance(0)
        self.assertEqual(self.producer.told, ["resume"])

    def test_stopping(self) -> None:
        self.pulled.stopProducing()
        self.assertEqual(self.producer.told, ["stop"])
        self.assertEqual(self.clock.getDelayedCalls(), [])
