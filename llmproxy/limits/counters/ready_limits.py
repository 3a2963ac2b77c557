"""Limits with the counters of this process that they are taken from: looked up once, and not for each request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from llmproxy.limits.counters.local import LeaseCounter
from llmproxy.limits.counters.prefetch import PrefetchedBudget
from llmproxy.limits.window import SLOTS_PER_SECOND, WINDOW_SLOTS, Window

_new = tuple.__new__  # makes a NamedTuple in a third of the time that a call of its class takes


class TakenLimits(NamedTuple):
    """What a request has taken: the ticket by which it is settled.

    @ivar amounts: What it claimed, in the order of its limits' units.
    @ivar slot: The slot of the rates' windows in which that was taken.
    @ivar left: What is left of each rate; C{reset}: seconds until all of them are whole.
    """

    limits: ReadyLimits
    amounts: Sequence[int]
    slot: int
    left: list[int]
    reset: float


class ReadyLimits:
    """Takes of all of them or of none, and settles what was taken.

    @ivar known: What their counters had in common when they were looked up: as long as those who know the counters have
        the same, none of these has been forgotten.
    """

    __slots__ = ("_budgets", "_by_key", "_leases", "_rates", "_slot", "known")

    def __init__(
        self,
        known: object,
        leases: Sequence[tuple[int, LeaseCounter, int]],
        rates: Sequence[tuple[int, Window, int]],
        budgets: Sequence[tuple[int, PrefetchedBudget, int]],
        by_key: Mapping[str, PrefetchedBudget],
    ) -> None:
        """
        @param leases: The index of what is taken among a request's amounts, the counter, and what the limit allows;
            likewise C{rates} and C{budgets}.
        @param by_key: The budgets.
        """
        self._by_key = by_key
        self.known = known
        self._leases = leases
        # Those side by side of which the same is taken are looked at together; the least that one of them allows.
        grouped = [(unit, [each[1:] for each in of]) for unit, of in groupby(rates, itemgetter(0))]
        self._rates = [(unit, min(limit for _, limit in of), of) for unit, of in grouped]
        self._budgets = budgets
        self._slot = -1  # to which all windows have been slid

    def take(self, amounts: Sequence[int], now: float) -> TakenLimits | None:
        """Take of all of them; C{None}, and nothing is taken, where one has not enough.

        @param now: Seconds, monotonic.
        """
        # Each request passes here: what a call for each limit would cost is several times as much.
        slot = int(now * SLOTS_PER_SECOND)
        if slot != self._slot:
            slot = self._slide(slot)
        for unit, lease, limit in self._leases:
            if lease.held + amounts[unit] > limit:
                return None
        for unit, budget, limit in self._budgets:
            if budget.limit != limit or budget.room < (amounts[unit] or 1):
                return None
        left: list[int] = []
        for unit, _, rates in self._rates:
            amount = amounts[unit]
            for window, limit in rates:
                used = window.used + amount
                if used > limit:
                    if amount > limit:  # a request that alone may be more than all of it waits for an empty window
                        used = window.used + limit
                    if used > limit:
                        self._give_back(amounts, len(left))
                        return None
                window.used = used
                left.append(limit - used)
                if not amount:
                    window.note()
        # There is room in all of them.
        for _, lease, _ in self._leases:
            lease.held += 1
        for unit, budget, _ in self._budgets:
            amount = amounts[unit]
            budget.room -= amount
            budget.held += amount
            budget.busy = True
            if budget.room < budget.low:
                budget.refill()
        reset = (slot + (WINDOW_SLOTS + 1)) / SLOTS_PER_SECOND - now
        return _new(TakenLimits, (self, amounts, slot, left, reset))

    def _slide(self, slot: int) -> int:
        """Have all windows at that slot, or, where the clock is set back, at the one at which they stand; gives it."""
        for _, _, rates in self._rates:
            for window, _ in rates:
                if window.slot != slot:
                    window.slide(slot)
                    if window.slot != slot:
                        return self._slide(window.slot)
        self._slot = slot
        return slot

    def _give_back(self, amounts: Sequence[int], count: int) -> None:
        """What was just taken of so many rates."""
        taken = [(amounts[unit], window, limit) for unit, _, rates in self._rates for window, limit in rates]
        for amount, window, limit in taken[:count]:
            window.used -= min(amount, limit)

    def settle(self, taken: TakenLimits, amounts: Sequence[int], *, measured: bool = True) -> None:
        """A request is over that took so much.

        @param measured: Whether its line in the ledger says the same.
        """
        _, claimed, slot, _, _ = taken
        for _, lease, _ in self._leases:
            lease.held -= 1
        for unit, least, rates in self._rates:
            amount, used = claimed[unit], amounts[unit]
            if amount == used and amount <= least:
                continue
            for window, limit in rates:
                more = used - (amount if amount < limit else limit)
                if slot == window.slot and window.used != window.noted:
                    window.used += more
                else:
                    window.correct(slot, more)
        for unit, budget, _ in self._budgets:
            amount, used = claimed[unit], amounts[unit]
            budget.room += amount - used
            budget.held -= amount
            if used < amount:
                budget.full_until = 0.0
            if not measured:
                budget.unmeasured += used

    def untold(self, amounts: Mapping[str, int]) -> None:
        """As L{ICounters<llmproxy.interfaces.ICounters>} has it."""
        for key, amount in amounts.items():
            self._by_key[key].unmeasured += amount
