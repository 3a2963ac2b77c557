"""Budgets that last as long as this process, for whoever has no store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from zope.interface import implementer

from llmproxy.base.coroutines import deferred
from llmproxy.interfaces import IBudgetStore
from llmproxy.model import Advance

MAX_BUDGETS_BEFORE_SWEEP = 10_000  # budgets, beyond which those of the past are forgotten


@implementer(IBudgetStore)
class MemoryBudgetStore:
    """What was spent, in a dictionary."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._spent: dict[str, tuple[int, float]] = {}
        self._many = MAX_BUDGETS_BEFORE_SWEEP

    @deferred
    async def take_budget(self, key: str, least: int, most: int, limit: int, ends: float) -> Advance:
        spent, _ = self._spent.get(key, (0, 0.0))
        taken = min(most, limit - spent)
        if taken < least:
            return Advance(0, spent)
        if len(self._spent) >= self._many:
            await self.forget_budgets(self._now())
            self._many = max(MAX_BUDGETS_BEFORE_SWEEP, 2 * len(self._spent))
        self._spent[key] = (spent + taken, ends)
        return Advance(taken, spent + taken)

    @deferred
    async def give_budgets(self, amounts: Mapping[str, int]) -> None:
        for key, amount in amounts.items():
            if key in self._spent:
                spent, ends = self._spent[key]
                self._spent[key] = (spent - amount, ends)

    @deferred
    async def account_budgets(self, amounts: Mapping[str, int]) -> None:
        """Nothing is recovered here."""

    @deferred
    async def budgets_spent(self, keys: Sequence[str]) -> dict[str, int]:
        return {key: self._spent[key][0] for key in keys if key in self._spent}

    @deferred
    async def forget_budgets(self, before: float) -> int:
        over = [key for key, (_, ends) in self._spent.items() if 0 < ends < before]
        for key in over:
            del self._spent[key]
        return len(over)
