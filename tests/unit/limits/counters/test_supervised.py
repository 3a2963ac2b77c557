"""Counters of workers, which their supervisor shares; with processes in tests/integration/test_workers.py."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from llmproxy.base.coroutines import as_deferred
from llmproxy.limits.counters.budget_store import MemoryBudgetStore
from llmproxy.limits.counters.shared import SharedCounters
from llmproxy.limits.counters.supervised import SupervisedCounters
from tests.unit.limits.counters.contract import CountersContract, budget, lease, rate


class SupervisedCase(TestCase):
    clock: Clock

    def setUp(self) -> None:
        self.shared = SharedCounters(self.clock.seconds)
        self.silent = False
        self.made = self.counters()

    def counters(self, worker: str = "1.1") -> SupervisedCounters:
        def exchange(settled: list[Any], wanted: list[Any]) -> Deferred[list[Any]]:
            if self.silent:
                return fail(ConnectionError("gone"))
            return succeed(self.shared.exchange(worker, settled, wanted))

        store = MemoryBudgetStore(self.clock.seconds)
        return SupervisedCounters(exchange, self.clock, store, self.clock.seconds, processes=2)


class TurningClock(Clock):
    """Each turn of the reactor is a call of it."""

    def callLater(self, when: float, what: Any, *call: Any, **more: Any) -> Any:
        timer = super().callLater(when, what, *call, **more)
        if not when:
            from twisted.internet import reactor

            reactor.callLater(0, self.advance, 0)  # type: ignore[attr-defined]
        return timer


class SupervisedContractTests(CountersContract, SupervisedCase):
    """As counters of every kind."""

    def setUp(self) -> None:
        self.clock = TurningClock()
        super().setUp()

    async def pause(self) -> None:
        self.clock.advance(0)


class SupervisorSilentTests(SupervisedCase):
    def setUp(self) -> None:
        self.clock = Clock()
        super().setUp()

    def reserve(self, *claims: Any) -> Any:
        waiting = as_deferred(self.made.reserve(list(claims)))
        self.clock.pump([0, 0])
        return self.successResultOf(waiting)

    def test_what_is_settled(self) -> None:
        """It is told at the end of the turn, or when somebody says so; once."""
        verdict = self.reserve(lease(1))
        self.made.tell_settled()
        self.made.settle(verdict.ticket, [0])
        self.assertEqual(self.shared.reservations, 1)
        self.made.tell_settled()
        self.assertEqual(self.shared.reservations, 0)
        self.clock.advance(0)
        self.made.settle(self.reserve(lease(1)).ticket, [0])
        self.clock.advance(0)
        self.assertEqual((self.shared.reservations, self.reserve(lease(1)).refused), (0, None))

    def test_what_is_heard_too_late(self) -> None:
        """What another worker lets go of is free for whoever is told of that, even where the supervisor hears of it
        later; one who is refused twice is refused."""
        held, decide = [self.reserve(lease(1)).ticket], self.shared.exchange
        asked: list[int] = []

        def exchange(worker: str, settled: list[Any], wanted: list[Any]) -> list[Any]:
            answers = decide(worker, settled, wanted)
            asked.append(len(wanted))
            if held:  # just behind it
                self.made.settle(held.pop(), [0])
                self.made.tell_settled()
            return answers

        self.shared.exchange = exchange  # type: ignore[method-assign,assignment]
        waiting = as_deferred(self.counters("2.1").reserve([rate(5), lease(1)]))
        self.clock.advance(0)
        self.assertEqual((self.successResultOf(waiting).refused, asked), (None, [1, 0, 1]))
        for claims, times in (([lease(1)], 2), ([rate(5), lease(1)], 2), ([rate(0)], 1)):
            asked.clear()
            self.assertEqual(self.reserve(*claims).refused, len(claims) - 1)
            self.assertEqual(asked, [1] * times)
        self.assertEqual(self.shared.reservations, 1)

    def test_nobody_answers(self) -> None:
        """Each limit by its own word; what was asked for is given back, should it be made after all."""
        self.silent = True
        self.assertEqual(self.reserve(rate(5, on_loss="open"), lease(1, on_loss="closed")).refused, 1)
        verdict = self.reserve(rate(4, on_loss="local-share"), budget(10, 4, on_loss="local-share"))
        self.assertEqual((verdict.refused, verdict.remaining), (None, (1, 6)))
        self.made.settle(verdict.ticket, [1, 2])
        self.assertEqual(self.reserve(budget(10, 8, on_loss="local-share")).refused, None)
        self.silent = False
        self.assertEqual(self.reserve(rate(5)).remaining, (4,))
        self.assertEqual(self.shared.reservations, 1)
