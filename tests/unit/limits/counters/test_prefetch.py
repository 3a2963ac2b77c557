"""Parts of a budget that are spent in advance."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.limits.counters.budget_store import UnsharedBudgets
from llmproxy.limits.counters.prefetch import AHEAD, SHARE, Allotments
from llmproxy.model import Claim
from tests.unit.limits.counters.contract import budget


class AllotmentsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.store = UnsharedBudgets(self.clock.seconds)
        self.allotments = Allotments(self.store, self.clock, self.clock.seconds)

    def take_more(self, claim: Claim) -> None:
        self.allotments.lock(claim)
        self.successResultOf(Deferred.fromCoroutine(self.allotments.take_more(claim)))

    def spent(self, claim: Claim) -> int:
        return self.successResultOf(self.store.budgets_spent([claim.key])).get(claim.key, 0)

    def test_in_advance_but_not_too_much(self) -> None:
        """For some requests more, and never more than a small part of the whole; one request's worst in any case."""
        for limit, amount, taken in ((10**9, 10, AHEAD * 10), (1000, 10, 1000 // SHARE), (100, 90, 90)):
            claim = budget(limit, amount, key=f"k{limit}")
            self.assertIsNone(self.allotments.room(claim))
            self.take_more(claim)
            self.assertEqual((self.allotments.room(claim), self.spent(claim)), (taken, taken))

    def test_a_budget_that_has_been_changed(self) -> None:
        """What was taken of the old one is given back first, so that a lowered budget is not exceeded by it."""
        self.take_more(budget(10**6, 1000))
        lowered = budget(500, 400)
        self.assertIsNone(self.allotments.room(lowered))
        self.take_more(lowered)
        self.assertEqual(self.spent(lowered), 400)

    def test_what_is_full_is_asked_about_again_after_a_moment(self) -> None:
        self.take_more(budget(100, 100))
        self.allotments.spend(budget(100, 100))
        self.take_more(budget(100, 1))
        self.assertEqual(self.allotments.room(budget(100, 1)), 0)
        self.clock.advance(1)
        self.assertIsNone(self.allotments.room(budget(100, 1)))

    def test_given_back_when_its_period_is_over(self) -> None:
        claim = Claim("day", "budget", 10**6, 10, 100.0)
        self.take_more(claim)
        self.allotments.spend(claim)
        self.allotments.correct(claim, 4)
        self.clock.advance(100)
        self.successResultOf(Deferred.fromCoroutine(self.allotments.give_back()))
        self.assertEqual((self.spent(claim), len(self.allotments)), (4, 0))

    def test_nobody_gives_back_what_is_being_asked_for(self) -> None:
        claim = budget(10**6, 10)
        self.take_more(claim)
        lock = self.allotments.lock(claim)
        self.successResultOf(lock.acquire())
        self.successResultOf(Deferred.fromCoroutine(self.allotments.give_back(all_of_it=True)))
        self.assertEqual(self.spent(claim), AHEAD * 10)
        lock.release()
        self.successResultOf(Deferred.fromCoroutine(self.allotments.give_back(all_of_it=True)))
        self.assertEqual(self.spent(claim), 0)
