"""What is held of its limits for one request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from llmproxy.base.budgets import nano
from llmproxy.limits.counted import CountedLimits
from llmproxy.limits.plan import LimitPlan, Rule
from llmproxy.model import Claim

Amounts = tuple[int, int, int]
"""Requests, tokens, and nano-dollars."""


class BudgetObserver(Protocol):
    """Is told what happens to budgets; neither may wait for anything."""

    def spent(self, plan: LimitPlan, limits: CountedLimits) -> None:
        """A request is over that was held to these limits of the plan, those of its period; of further ones nobody need
        be told for as long as the limits are C{observed}."""

    def refused(self, rule: Rule, claim: Claim) -> None:
        """Too little of this budget was left for a request, and none is held by requests under way."""


class SettlesTickets(Protocol):
    """Counters that what is held was taken from; L{ICounters} says more."""

    def settle(self, ticket: Any, amounts: Sequence[int], *, measured: bool = True) -> None: ...
    def untold(self, amounts: Mapping[str, int]) -> None: ...


class LimitReservation:
    """What is held for one request until it is settled.

    @ivar limits: Those of its plan, in the period in which it came.
    @ivar is_local: Whether counters of this process alone settle it, so that nobody elsewhere may wait for that.
    @ivar header_lines: Header lines that tell the client how its limits stand, with line ends between them.
    """

    __slots__ = (
        "_amounts",
        "_budgets",
        "_by_unit",
        "_counters",
        "_ticket",
        "header_lines",
        "is_local",
        "limits",
        "plan",
    )

    def __init__(
        self,
        counters: SettlesTickets,
        plan: LimitPlan,
        limits: CountedLimits,
        amounts: Amounts,
        ticket: Any,
        header_lines: bytes,
        budgets: BudgetObserver | None,
        *,
        by_unit: bool = True,
        is_local: bool = False,
    ):
        """
        @param amounts: What it may use at most.
        @param by_unit: Whether C{counters} settle the amount of each unit, and not that of each claim.
        """
        self._counters = counters
        self._ticket = ticket
        self._budgets = budgets
        self._amounts = amounts
        self._by_unit = by_unit
        self.is_local = is_local
        self.plan = plan
        self.limits = limits
        self.header_lines = header_lines

    @property
    def claims(self) -> list[Claim]:
        """What is held of each limit."""
        return self.limits.claimed(self._amounts)

    @property
    def budgets(self) -> list[tuple[str, str, int, float]]:
        """What is held of each budget: its key, its unit, how much, and when its period ends."""
        pairs = zip(self.plan.rules, self.claims, strict=True)
        return [(claim.key, rule.unit, claim.amount, claim.ends) for rule, claim in pairs if rule.kind == "budget"]

    def give_back(self) -> None:
        """Nothing was sent: it counts as not made."""
        self._settle((0, 0, 0))

    def keep(self, *, recorded: bool = False) -> None:
        """Nobody knows what it used: it counts as what it could have used at most.

        @param recorded: Whether the ledger keeps what is held, until a later response tells.
        """
        self._settle(self._amounts, measured=recorded)

    def settle(self, tokens: int, cost: float | None) -> None:
        """It used so many tokens, and so many dollars; what has no known price is charged at the worst.

        @param cost: C{None} where nobody knows.
        """
        if cost is not None:
            self._settle((1, tokens, nano(cost)))
        elif self._ticket is not None:
            self._settle((1, tokens, self._amounts[2]))
            untold = {key: amount for key, unit, amount, _ in self.budgets if unit == "usd"}
            if untold:  # their line will have no price
                self._counters.untold(untold)

    def _settle(self, amounts: Amounts, *, measured: bool = True) -> None:
        ticket = self._ticket
        if ticket is not None:
            self._ticket = None
            by_claim = amounts if self._by_unit else [amounts[unit] for unit in self.plan.units]
            self._counters.settle(ticket, by_claim, measured=measured)
            if self._budgets is not None and not self.limits.observed:
                self._budgets.spent(self.plan, self.limits)
