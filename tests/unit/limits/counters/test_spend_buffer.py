"""What was spent of budgets that Redis counts reaches the store too."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.internet.defer import Deferred, fail
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.errors import LimitsUnavailable, StoreUnavailable
from llmproxy.limits.counters.budget_store import UnsharedBudgets
from llmproxy.limits.counters.spend_buffer import Spending
from tests.unit.limits.counters.contract import budget


class Store(UnsharedBudgets):
    away = False
    slow: Deferred[None] | None = None
    charges = 0

    def charge_budgets(self, amounts: Mapping[str, tuple[int, float]]) -> Deferred[None]:
        self.charges += 1
        if self.away:
            return fail(StoreUnavailable())
        return self.slow if self.slow is not None else super().charge_budgets(amounts)

    def budgets_spent(self, keys: object) -> Deferred[dict[str, int]]:
        return fail(StoreUnavailable()) if self.away else super().budgets_spent(keys)  # type: ignore[arg-type]


class SpendingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.store = Store(lambda: 0.0)
        self.spending = Spending(self.store)

    def known(self, key: str = "b") -> int:
        return self.successResultOf(Deferred.fromCoroutine(self.spending.known([key])))[key]

    def save(self) -> None:
        self.successResultOf(self.spending.save())

    def test_it_adds_up(self) -> None:
        for amount in (3, 0, 4):
            self.spending.add(budget(100, 50, key="b"), amount)
        self.assertEqual(self.known(), 7)
        self.save()
        self.save()
        self.assertEqual((self.store.charges, self.known()), (1, 7))

    def test_the_store_is_away(self) -> None:
        """What it did not take is told again, with what came since."""
        self.store.away = True
        self.spending.add(budget(100, 50, key="b"), 3)
        self.save()
        self.spending.add(budget(100, 50, key="b"), 4)
        self.failureResultOf(Deferred.fromCoroutine(self.spending.known(["b"])), LimitsUnavailable)
        self.store.away = False
        self.save()
        self.assertEqual(self.known(), 7)

    def test_one_batch_at_a_time(self) -> None:
        self.store.slow = Deferred()
        self.spending.add(budget(100, 50, key="b"), 3)
        saving = self.spending.save()
        self.spending.add(budget(100, 50, key="b"), 4)
        self.save()
        self.assertEqual(self.store.charges, 1)
        slow, self.store.slow = self.store.slow, None
        slow.callback(None)
        self.successResultOf(saving)
        self.assertEqual(self.store.charges, 2)

    def test_many_budgets(self) -> None:
        for number in range(1200):
            self.spending.add(budget(100, 50, key=f"b{number}"), 1)
        self.save()
        self.assertEqual((self.store.charges, self.known("b1199")), (3, 1))
