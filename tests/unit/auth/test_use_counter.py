"""Uses are counted in memory and reach the store in batches, and none is lost while it is away."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.auth.use_counter import UseCounter
from llmproxy.errors import StoreUnavailable


class Counts:
    """The one method of a token store that is used here; a test says what it answers."""

    def __init__(self) -> None:
        self.taken: list[dict[str, tuple[int, float]]] = []
        self.answers: list[Deferred[None]] = []

    def count_uses(self, uses: Mapping[str, tuple[int, float]]) -> Deferred[None]:
        self.taken.append(dict(uses))
        return self.answers.pop(0) if self.answers else succeed(None)


class UseCounterTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.store = Counts()
        self.counter = UseCounter(self.store.count_uses, self.clock, self.clock.seconds, 10.0, 1000)

    def count(self, *tokens: str) -> None:
        for token in tokens:
            self.clock.advance(1)
            self.counter.count(token)

    def flushed(self) -> Any:
        return self.successResultOf(self.counter.flush())

    def test_they_add_up(self) -> None:
        self.count("a", "b", "a")
        self.assertEqual(self.counter.pending, 3)
        self.flushed()
        self.assertEqual(self.store.taken, [{"a": (2, 3.0), "b": (1, 2.0)}])
        self.assertEqual(self.counter.pending, 0)

    def test_nothing_to_say(self) -> None:
        self.flushed()
        self.assertEqual(self.store.taken, [])

    def test_the_store_is_away(self) -> None:
        """What it did not take is handed over again, together with what came since."""
        self.store.answers = [fail(StoreUnavailable())]
        self.count("a")
        self.flushed()
        self.count("a")
        self.flushed()
        self.assertEqual(self.store.taken, [{"a": (1, 1.0)}, {"a": (2, 2.0)}])

    def test_the_store_does_not_answer(self) -> None:
        self.store.answers = [Deferred()]
        self.count("a")
        flushing = self.counter.flush()
        self.assertNoResult(flushing)
        self.clock.advance(10)
        self.successResultOf(flushing)
        self.assertEqual(self.counter.pending, 1)

    def test_uses_without_end(self) -> None:
        """Under load there are always more by the time a batch is stored: those are the next flush's."""
        self.store.answers = [first := Deferred()]
        self.count("a")
        flushing = self.counter.flush()
        self.count("a")
        first.callback(None)
        self.successResultOf(flushing)
        self.assertEqual((len(self.store.taken), self.counter.pending), (1, 1))

    def test_given_up_between_two_batches(self) -> None:
        """Whatever no batch has taken is still counted."""
        self.count(*(f"t{number}" for number in range(501)))
        self.store.answers = [Deferred()]
        flushing = self.counter.flush()
        flushing.cancel()
        self.failureResultOf(flushing, CancelledError)
        self.assertEqual(self.counter.pending, 501)

    def test_taken_back(self) -> None:
        """One that the store may have taken back already is not taken back again: no limit is exceeded by that."""
        self.counter.take_back("a")
        self.count("b")
        self.store.answers = [fail(StoreUnavailable())]
        self.flushed()
        self.flushed()
        self.assertEqual(self.store.taken, [{"a": (-1, 0.0), "b": (1, 1.0)}, {"b": (1, 1.0)}])

    def test_counted_while_flushing(self) -> None:
        """Two flushes take turns, and the second takes what came during the first."""
        self.store.answers = [first := Deferred()]
        self.count("a")
        one, two = self.counter.flush(), None
        self.count("a")
        two = self.counter.flush()
        self.assertEqual(len(self.store.taken), 1)
        first.callback(None)
        self.successResultOf(one)
        self.successResultOf(two)
        self.assertEqual(self.store.taken, [{"a": (1, 1.0)}, {"a": (1, 2.0)}])

    def test_given_up(self) -> None:
        self.store.answers = [Deferred()]
        self.count("a")
        flushing = self.counter.flush()
        flushing.cancel()
        self.failureResultOf(flushing, CancelledError)
        self.assertEqual(self.counter.pending, 1)
        self.flushed()
        self.assertEqual(self.counter.pending, 0)

    def test_batches(self) -> None:
        for n in range(750):
            self.counter.count(str(n))
        self.flushed()
        self.assertEqual([len(batch) for batch in self.store.taken], [500, 250])

    def test_bounded(self) -> None:
        """In a long outage memory stays within bounds, and what is dropped is counted."""
        for n in range(1500):
            self.counter.count(str(n))
        self.counter.count("0")
        self.assertEqual((self.counter.pending, self.counter.dropped), (1001, 500))
