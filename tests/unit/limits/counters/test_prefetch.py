"""Parts of a budget that are spent in advance."""

from __future__ import annotations

from functools import partial

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.base.coroutines import deferred
from llmproxy.errors import LimitsUnavailable
from llmproxy.limits.counters.budget_store import MemoryBudgetStore
from llmproxy.limits.counters.prefetch import (
    LEAST_SHARES,
    REQUESTS_AHEAD,
    STORE_TIMEOUT_SECONDS,
    BudgetPrefetch,
    PrefetchedBudget,
)
from llmproxy.model import Advance, Claim, Verdict
from tests.unit.limits.counters.contract import budget


def spend(known: PrefetchedBudget, amount: int) -> None:
    """A request claims so much, as counters have it."""
    known.room -= amount
    known.held += amount


class SlowBudgets(MemoryBudgetStore):
    """Counts how often it is asked, and answers when a test says so."""

    slow: Deferred[None] | None = None
    takes = 0

    @deferred
    async def take_budget(self, key: str, least: int, most: int, limit: int, ends: float) -> Advance:
        self.takes += 1
        if self.slow is not None:
            await self.slow
        return await super().take_budget(key, least, most, limit, ends)


class BudgetPrefetchTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.store = SlowBudgets(self.clock.seconds)
        self.prefetch = BudgetPrefetch(self.store, self.clock, self.clock.seconds)

    def take_more(self, *claims: Claim) -> None:
        """Have the store asked for what requests with these claims need, and decide them without spending."""
        asked: list[Claim] = []

        def decide(claim: Claim) -> Verdict | None:
            """Nothing at first, so that the store is asked."""
            asked.append(claim)
            return Verdict(None) if asked.count(claim) > 1 or self.prefetch.room(claim) is not None else None

        for claim in claims:
            self.successResultOf(self.prefetch.wait([claim], partial(decide, claim)))

    def spent(self, claim: Claim) -> int:
        return self.successResultOf(self.store.budgets_spent([claim.key])).get(claim.key, 0)

    def test_in_advance_but_not_too_much(self) -> None:
        """For some requests more, and never more than a small part of the whole; one request's worst in any case."""
        for limit, amount, taken in ((10**9, 10, REQUESTS_AHEAD * 10), (1000, 10, 1000 // LEAST_SHARES), (100, 90, 90)):
            claim = budget(limit, amount, key=f"k{limit}")
            self.assertIsNone(self.prefetch.room(claim))
            self.take_more(claim)
            self.assertEqual((self.prefetch.room(claim), self.spent(claim)), (taken, taken))

    def test_a_budget_that_has_been_changed(self) -> None:
        """What was taken of the old one is given back first, so that a lowered budget is not exceeded by it."""
        self.take_more(budget(10**6, 1000))
        lowered = budget(500, 400)
        self.assertIsNone(self.prefetch.room(lowered))
        self.take_more(lowered)
        self.assertEqual(self.spent(lowered), 400)

    def test_what_is_full_is_asked_about_again_after_a_moment(self) -> None:
        self.take_more(budget(100, 100))
        spend(self.prefetch.known[budget(100, 100).key], 100)
        self.take_more(budget(100, 1))
        self.assertEqual(self.prefetch.room(budget(100, 1)), 0)
        self.clock.advance(1)
        self.assertIsNone(self.prefetch.room(budget(100, 1)))

    def test_given_back_when_its_period_is_over(self) -> None:
        claim = Claim("day", "budget", 10**6, 10, 100.0)
        self.take_more(claim)
        spend(self.prefetch.known["day"], 10)
        self.prefetch.known["day"].room += 6  # it took less
        self.prefetch.known["day"].held -= 10
        self.clock.advance(100)
        self.successResultOf(Deferred.fromCoroutine(self.prefetch.give_back()))
        self.assertEqual((self.spent(claim), len(self.prefetch)), (4, 0))

    def test_nobody_gives_back_what_is_being_asked_for(self) -> None:
        claim = budget(10**6, 10)
        self.take_more(claim)
        self.store.slow = Deferred()
        larger = claim._replace(amount=10**5)
        waiting = self.prefetch.wait([larger], lambda: None if self.prefetch.room(larger) is None else Verdict(0))
        self.give_back()
        self.assertEqual(self.spent(claim), REQUESTS_AHEAD * 10)
        slow, self.store.slow = self.store.slow, None
        slow.callback(None)
        self.successResultOf(waiting)
        self.give_back()
        self.assertEqual(self.spent(claim), 0)

    def give_back(self) -> None:
        self.successResultOf(Deferred.fromCoroutine(self.prefetch.give_back(all_of_it=True)))

    def crowd(self, limit: int, size: int, amount: int = 10) -> list[Deferred[Verdict]]:
        """So many at once, while the store takes its time."""
        self.store.slow = Deferred()
        claim = budget(limit, amount)

        def decide() -> Verdict | None:
            room = self.prefetch.room(claim)
            if room is None:
                return None
            if room < amount:
                return Verdict(0)
            spend(self.prefetch.known[claim.key], amount)
            return Verdict(None)

        return [self.prefetch.wait([claim], decide) for _ in range(size)]

    def answered(self) -> None:
        """The store answers, and the reactor has its turns."""
        while self.store.slow is not None and not self.store.slow.called:
            slow, self.store.slow = self.store.slow, None
            slow.callback(None)
            self.clock.pump([0] * 50)

    def test_a_crowd_is_two_questions(self) -> None:
        """However many ask at once, the store is asked for the first, then for the sum of all others."""
        crowd = self.crowd(10**6, 1000)
        self.answered()
        self.assertEqual([self.successResultOf(each).refused for each in crowd], [None] * 1000)
        self.assertEqual(self.store.takes, 2)

    def test_a_crowd_on_a_budget_that_does_not_last(self) -> None:
        """All are decided: those that fit in the order in which they came, the others are refused."""
        crowd = self.crowd(1000, 1000)
        self.answered()
        self.assertEqual([self.successResultOf(each).refused for each in crowd], [None] * 100 + [0] * 900)
        self.assertEqual(self.spent(budget(1000, 10)), 1000)

    def test_a_crowd_and_a_store_that_does_not_answer(self) -> None:
        """It has an end for everybody, and the next is asked for again."""
        crowd = self.crowd(10**6, 300)
        self.clock.advance(STORE_TIMEOUT_SECONDS)
        self.clock.pump([0] * 10)
        for each in crowd:
            self.failureResultOf(each, LimitsUnavailable)
        self.store.slow = None
        self.take_more(budget(10**6, 10))
        self.assertEqual(self.prefetch.room(budget(10**6, 10)), REQUESTS_AHEAD * 10)

    def test_one_of_a_crowd_leaves(self) -> None:
        """Nothing is taken for it, nor does it hold up those behind it."""
        crowd = self.crowd(1000, 101)
        crowd[50].cancel()
        self.failureResultOf(crowd[50], CancelledError)
        self.answered()
        self.assertTrue(all(self.successResultOf(each).refused is None for each in crowd[:50] + crowd[51:]))

    def test_one_with_two_budgets(self) -> None:
        """It waits for both, and takes part in the sums of both."""
        day, month = budget(1000, 10, key="day"), budget(5000, 10, key="month")

        def decide() -> Verdict | None:
            return None if None in (self.prefetch.room(day), self.prefetch.room(month)) else Verdict(None)

        self.successResultOf(self.prefetch.wait([day, month], decide))
        self.assertEqual((self.spent(day), self.spent(month)), (20, 100))

    def test_nothing_left_and_nothing_claimed(self) -> None:
        """A budget of which nothing is left is full also for who claims nothing of it."""
        self.take_more(budget(100, 100))
        spend(self.prefetch.known[budget(100, 100).key], 100)
        self.assertIsNone(self.prefetch.room(budget(100, 0)))
        self.take_more(budget(100, 0))
        self.assertEqual(self.prefetch.room(budget(100, 0)), 0)
