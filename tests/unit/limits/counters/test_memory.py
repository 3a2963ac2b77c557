"""Counters in this process, and their budgets in the store."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from llmproxy import plugins
from llmproxy.errors import LimitsUnavailable, StoreUnavailable
from llmproxy.interfaces import IBudgetStore, ICountersFactory
from llmproxy.limits.counted import CountedLimits
from llmproxy.limits.counters.budget_store import MemoryBudgetStore
from llmproxy.limits.counters.memory import MemoryCounters
from llmproxy.limits.counters.prefetch import REQUESTS_AHEAD
from llmproxy.model import Advance, Claim, Verdict
from tests.support.examples import examples
from tests.unit.limits.counters.contract import CountersContract, budget, lease, rate


class Budgets(MemoryBudgetStore):
    """Counts how often it is asked; a test says when it is away, or slow."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock.seconds)
        self.takes = self.gives = 0
        self.away = False
        self.slow: list[Deferred[None]] | None = None

    def take_budget(self, key: str, least: int, most: int, limit: int, ends: float) -> Deferred[Advance]:
        self.takes += 1
        if self.away:
            return fail(StoreUnavailable())
        take = super().take_budget
        if self.slow is None:
            return take(key, least, most, limit, ends)
        self.slow.append(answer := Deferred())
        return answer.addCallback(lambda _: take(key, least, most, limit, ends))

    def give_budgets(self, amounts: Mapping[str, int]) -> Deferred[None]:
        self.gives += 1
        return fail(StoreUnavailable()) if self.away else super().give_budgets(amounts)

    def spent(self, key: str = "budget:lifetime") -> int:
        return self._spent.get(key, (0, 0.0))[0]


class PlainCounters:
    """Rates and leases in the plainest way: every use is kept, and added up each time."""

    def __init__(self) -> None:
        self.uses: list[tuple[Claim, int, list[int]]] = []  # a claim, the tenth of a second, and what it took

    def left(self, claim: Claim, tenth: int) -> int:
        """A use counts for sixty seconds and the tenth in which it fell; a lease until it is over."""
        taken = [use[0] for of, at, use in self.uses if of.key == claim.key and (not of.ends or tenth - at <= 600)]
        return claim.limit - sum(taken)

    def reserve(self, claims: list[Claim], tenth: int) -> tuple[int | None, list[int]]:
        def taken(claim: Claim) -> int:
            return min(claim.amount, claim.limit) if claim.kind == "rate" else claim.amount

        left = [self.left(claim, tenth) for claim in claims]
        for place, claim in enumerate(claims):
            if taken(claim) > left[place]:
                return place, [max(each, 0) for each in left]
        for claim in claims:
            self.uses.append((claim, tenth, [taken(claim)]))
        return None, [each - taken(claim) for each, claim in zip(left, claims, strict=True)]

    def settle(self, begin: int, count: int, amounts: list[int]) -> None:
        for (claim, _, use), amount in zip(self.uses[begin : begin + count], amounts, strict=True):
            use[0] = amount if claim.kind == "rate" else 0


CLAIMS = st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(1, 20), st.integers(1, 20), st.integers(1, 4))


class PlainlyCountedTests(TestCase):
    @examples(300)
    @given(st.lists(st.tuples(st.sampled_from([0, 0, 1, 7, 200, 599, 601]), CLAIMS, st.integers(0, 30)), max_size=40))
    def test_decides_as_the_plainest_way_does(
        self, steps: list[tuple[int, tuple[int, int, int, int, int], int]]
    ) -> None:
        clock = Clock()
        clock.advance(1_700_000_000)
        counters = MemoryCounters(MemoryBudgetStore(clock.seconds), clock, clock.seconds)
        plain, tenth, under_way = PlainCounters(), 0, []
        for later, (first, second, limit, other, many), used in steps:
            tenth += later
            clock.rightNow = 1_700_000_000.05 + tenth / 10
            claims = [
                Claim("many", "lease", many, 1),
                Claim("requests", "rate", limit, min(first, 1), 1.0),
                Claim("tokens", "rate", other, first, 1.0),
                Claim("shared", "rate", 25, second, 1.0),
            ]
            begin = len(plain.uses)
            refused, left = plain.reserve(claims, tenth)
            verdict = counters.reserve_now(claims)
            assert verdict is not None
            self.assertEqual((verdict.refused, list(verdict.remaining)), (refused, left))
            if refused is None:
                under_way.append((begin, verdict.ticket))
            if under_way and used > 15:
                begin, ticket = under_way.pop(0)
                plain.settle(begin, 4, [1, 1, used, used])
                counters.settle(ticket, [1, 1, used, used])


class MemoryCase(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_700_000_000)
        self.budgets = Budgets(self.clock)
        self.made = self.counters()

    def counters(self) -> MemoryCounters:
        return MemoryCounters(self.budgets, self.clock, self.clock.seconds)

    def granted_now(self, *claims: Claim) -> Verdict:
        verdict = self.made.reserve_now(claims) or self.successResultOf(self.made.reserve(claims))
        self.assertIsNone(verdict.refused)
        return verdict


class MemoryContractTests(CountersContract, MemoryCase):
    async def pause(self) -> None:
        """Nothing is under way here."""


class MemoryTests(MemoryCase):
    def test_it_is_a_plugin(self) -> None:
        factory = plugins.find(ICountersFactory, "memory")
        verifyObject(ICountersFactory, factory)
        verifyObject(IBudgetStore, self.budgets)

    def test_the_usual_request_waits_for_nothing(self) -> None:
        """The store is asked once for many requests."""
        self.granted_now(budget(100_000, 10))
        for _ in range(15):
            self.assertIsNotNone(self.made.reserve_now([lease(100), rate(100), budget(100_000, 10)]))
        self.assertEqual(self.budgets.takes, 1)

    def test_more_is_asked_for_before_nothing_is_left(self) -> None:
        """However slow the store is, who comes meanwhile goes on from what is left; and no more is had in advance."""
        self.granted_now(budget(1_000_000, 10))
        self.budgets.slow = []
        for number in range(1, 255):
            self.assertIsNotNone(self.made.reserve_now([budget(1_000_000, 10)]), number)
        self.assertEqual((self.budgets.takes, len(self.budgets.slow)), (2, 1))
        self.budgets.slow.pop().callback(None)
        self.assertEqual(self.budgets.spent(), 192 * 10 + REQUESTS_AHEAD * 10 + 10)
        for _ in range(100):
            self.assertIsNotNone(self.made.reserve_now([budget(1_000_000, 10)]))

    def test_what_was_settled_is_spent_without_asking(self) -> None:
        """Requests that claim much and take little go on from what the first was given."""
        for _ in range(500):
            verdict = self.granted_now(budget(1_000_000, 1000))
            self.made.settle(verdict.ticket, [10])
        self.assertLessEqual(self.budgets.takes, 2)

    def test_a_minute_later(self) -> None:
        for _ in range(3):
            self.granted_now(rate(3))
        refused = self.made.reserve_now([rate(3)])
        assert refused is not None and refused.wait is not None
        self.clock.advance(refused.wait + 0.001)
        self.granted_now(rate(3))

    def test_nothing_left_is_remembered_for_a_moment(self) -> None:
        """Who keeps asking for what is used up does not keep the store busy."""
        self.granted_now(budget(100, 100))
        for _ in range(10):
            verdict = self.made.reserve_now([budget(100, 1)]) or self.successResultOf(
                self.made.reserve([budget(100, 1)])
            )
            self.assertEqual(verdict.refused, 0)
        self.assertEqual(self.budgets.takes, 2)
        self.clock.advance(1.1)
        self.assertIsNone(self.made.reserve_now([budget(100, 1)]))

    def test_what_requests_under_way_hold_may_come_back_soon(self) -> None:
        held = self.granted_now(budget(100, 100))
        self.assertEqual(self.successResultOf(self.made.reserve([budget(100, 1)])).wait, 1.0)
        self.made.settle(held.ticket, [100])
        refused = self.successResultOf(self.made.reserve([budget(100, 1)]))
        self.assertEqual((refused.refused, refused.wait), (0, None))

    def test_two_processes_on_one_store(self) -> None:
        """Together they spend what there is, no more; what one had in advance the other gets when it is given back."""
        one, two, spent = self.made, self.counters(), 0
        for counters in [one, two] * 200:
            verdict = counters.reserve_now([budget(10_000, 100)])
            verdict = verdict or self.successResultOf(counters.reserve([budget(10_000, 100)]))
            if verdict.refused is None:
                counters.settle(verdict.ticket, [70])
                spent += 70
        self.assertLessEqual(spent, 10_000)
        self.assertGreater(spent, 9_500)
        for counters in (one, two):
            counters.startService()
            self.successResultOf(counters.stopService())
        self.assertEqual(self.budgets.spent(), spent)

    def test_a_process_that_dies(self) -> None:
        """What it held stays spent, so that no more is spent than there is; that is little."""
        verdict = self.granted_now(budget(10_000, 100))
        self.made.settle(verdict.ticket, [70])
        self.granted_now(budget(10_000, 100))
        self.made = self.counters()
        self.assertTrue(170 <= self.budgets.spent() <= 170 + 200, self.budgets.spent())
        self.assertEqual(self.successResultOf(self.made.used([budget(10_000, 1)])), [self.budgets.spent()])

    def test_what_is_not_needed_is_given_back(self) -> None:
        self.made.startService()
        self.addCleanup(self.made.stopService)
        verdict = self.granted_now(budget(1_000_000, 10))
        self.made.settle(verdict.ticket, [4])
        self.assertGreater(self.budgets.spent(), 4)
        self.clock.pump([5, 5, 5])
        self.assertEqual(self.budgets.spent(), 4)
        self.assertEqual(len(self.made._prefetch), 0)

    def test_what_was_overspent_is_told(self) -> None:
        self.made.startService()
        self.addCleanup(self.made.stopService)
        verdict = self.granted_now(budget(1000, 10))
        self.made.settle(verdict.ticket, [600])
        self.clock.advance(5)
        self.assertEqual(self.budgets.spent(), 600)

    def test_the_store_is_away(self) -> None:
        """What a process has in advance lasts; then requests are refused as such that can be tried again."""
        self.granted_now(budget(1_000_000, 10))
        self.budgets.away = True
        for _ in range(REQUESTS_AHEAD - 1):
            self.granted_now(budget(1_000_000, 10))
        self.failureResultOf(self.made.reserve([budget(1_000_000, 10)]), LimitsUnavailable)
        self.budgets.away = False
        self.granted_now(budget(1_000_000, 10))

    def test_nothing_is_given_back_twice(self) -> None:
        """Whether a store that does not answer took it is not known; what is owed it is told again."""
        self.made.startService()
        self.addCleanup(self.made.stopService)
        verdict = self.granted_now(budget(1_000_000, 10))
        owing = self.granted_now(budget(1000, 10, key="other"))
        self.made.settle(verdict.ticket, [4])
        self.made.settle(owing.ticket, [500])
        self.budgets.away = True
        self.clock.advance(5)
        self.clock.advance(5)
        self.budgets.away = False
        self.clock.advance(5)
        self.assertEqual((self.budgets.spent(), self.budgets.spent("other")), (REQUESTS_AHEAD * 10, 500))

    def test_those_who_wait_do_not_starve(self) -> None:
        """While the store takes its time everybody waits, and each gets what it asked for."""
        self.budgets.slow = []
        asking = [self.made.reserve([budget(10_000, 100)]) for _ in range(50)]
        while self.budgets.slow:
            self.budgets.slow.pop(0).callback(None)
        self.assertTrue(all(self.successResultOf(each).refused is None for each in asking))

    def test_one_who_gives_up_while_the_store_takes_its_time(self) -> None:
        self.budgets.slow = []
        first, second = (self.made.reserve([budget(1000, 100)]) for _ in range(2))
        second.cancel()
        self.failureResultOf(second)
        self.budgets.slow.pop(0).callback(None)
        self.assertIsNone(self.successResultOf(first).refused)

    def test_what_is_ready_counts_with_what_was_forgotten_meanwhile(self) -> None:
        """Limits keep their counters at hand; those of other requests, made later, are the same ones."""
        claims = [lease(2), rate(5), budget(1000, 1)]
        self.made.startService()
        self.addCleanup(self.made.stopService)
        verdict = self.granted_now(*claims)
        self.made.settle(verdict.ticket, [1, 1, 1])
        ready, later = (CountedLimits.of(claims) for _ in range(2))
        taken = self.made.take(ready, [1, 1, 1])
        assert taken is not None
        self.made.settle(taken, [1, 1, 1])
        self.clock.pump([5] * 14)
        for number in range(1100):
            self.granted_now(rate(5, key=f"r{number}"), lease(5, key=f"l{number}"))
            self.clock.advance(0.2)
        self.granted_now(*claims)
        self.assertIsNotNone(self.made.take(ready, [1, 1, 1]))
        self.assertIsNone(self.made.take(later, [1, 1, 1]), "More are held than the limit allows.")
        self.assertEqual(self.successResultOf(self.made.used(claims)), [2, 2, 4])

    def test_a_clock_that_is_set_back(self) -> None:
        """Stands still for all limits of a request, and what each took is corrected where it was taken."""
        first, both = CountedLimits.of([rate(5)]), CountedLimits.of([rate(9, key="other"), rate(5)])
        self.assertIsNotNone(self.made.take(first, [1]))
        self.clock.rightNow -= 20
        taken = self.made.take(both, [3, 3])
        assert taken is not None
        self.assertEqual(taken.left, [6, 1])
        self.assertAlmostEqual(taken.reset, 80.1, 1)
        self.clock.advance(20)
        self.made.settle(taken, [1, 2])
        claims = [rate(9, key="other"), rate(5)]
        self.assertEqual(self.successResultOf(self.made.used(claims)), [1, 3])

    def test_forgotten_when_over(self) -> None:
        """Budgets of past days, and rates that nobody uses, take no room."""
        for number in range(3000):
            self.granted_now(rate(5, key=f"r{number}"), Claim(f"b{number}", "budget", 50, 1, self.clock.seconds() + 1))
            self.clock.advance(1)
        self.assertLess(len(self.made._local), 1100)
        self.assertLess(len(self.made._prefetch), 1100 + 3000)
