"""Budgets without a store."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from llmproxy.interfaces import IBudgetStore
from llmproxy.limits.counters.budget_store import MAX_BUDGETS_BEFORE_SWEEP, MemoryBudgetStore


class MemoryBudgetStoreTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = 0.0
        self.budgets = MemoryBudgetStore(lambda: self.now)

    def take(self, key: str, least: int, most: int, ends: float = 0.0) -> tuple[int, int]:
        advance = self.successResultOf(self.budgets.take_budget(key, least, most, 100, ends))
        return advance.amount, advance.spent

    def test_taken_and_given(self) -> None:
        verifyObject(IBudgetStore, self.budgets)
        self.assertEqual(self.take("k", 10, 60), (60, 60))
        self.assertEqual(self.take("k", 10, 60), (40, 100))
        self.assertEqual(self.take("k", 10, 60), (0, 100))
        self.successResultOf(self.budgets.give_budgets({"k": 70, "none": 1}))
        self.successResultOf(self.budgets.account_budgets({"k": 5}))
        spent = self.successResultOf(self.budgets.budgets_spent(["k", "none"]))
        self.assertEqual(spent, {"k": 30})

    def test_those_of_the_past_take_no_room(self) -> None:
        self.take("ever", 1, 1)
        for number in range(3 * MAX_BUDGETS_BEFORE_SWEEP):
            self.now = float(number)
            self.take(f"day{number}", 1, 1, ends=number + 0.5)
        self.assertLessEqual(len(self.budgets._spent), MAX_BUDGETS_BEFORE_SWEEP + 1)
        self.assertEqual(self.take("ever", 1, 1), (1, 2))
