"""Limits as counters take from them: those of a plan are made ready once, and not for each request."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any, NamedTuple

from llmproxy.interfaces import ICounters
from llmproxy.limits.window import Window
from llmproxy.model import Claim

CountedLimit = tuple[int, str, int]
"""The index of what is taken among a request's amounts, the limit's key, and what it allows."""


class CountedLimits(NamedTuple):
    """Limits that are taken from together, by kind.

    @ivar claims: All of them, in their order, without what a request takes; of what is the same for all requests, with
        that.
    @ivar begins: When they began to be these, in seconds since the epoch, as periods of budgets did; C{ends}: when they
        are others.
    """

    claims: tuple[Claim, ...]
    leases: tuple[CountedLimit, ...]
    rates: tuple[CountedLimit, ...]
    budgets: tuple[CountedLimit, ...]
    begins: float
    ends: float

    @classmethod
    def of(cls, claims: Sequence[Claim], units: Sequence[int], begins: float = 0.0, ends: float = inf) -> CountedLimits:
        """
        @param units: For each claim the index of its amount.
        """
        by_kind: dict[str, list[CountedLimit]] = {"lease": [], "rate": [], "budget": []}
        for unit, claim in zip(units, claims, strict=True):
            by_kind[claim.kind].append((unit, claim.key, claim.limit))
        leases, rates, budgets = map(tuple, by_kind.values())
        return cls(tuple(claims), leases, rates, budgets, begins, ends)


NO_LIMITS = CountedLimits((), (), (), (), 0.0, 0.0)


TakenRate = tuple[Window, int, int, int]
"""The window, the slot of it in which something was taken, how much that was, and what is left."""


class TakenLimits(NamedTuple):
    """What a request has taken: the ticket by which it is settled.

    @ivar amounts: What it claimed, as they were given to L{ILocalCounters.take}.
    @ivar rates: Of each of its rates; C{budgets} likewise.
    @ivar at: When, monotonic.
    """

    limits: CountedLimits
    amounts: Any
    rates: list[TakenRate]
    budgets: Sequence[Any]
    at: float


class ILocalCounters(ICounters):
    """Counters in this process, which take of all limits of a request at once."""

    def take(limits: CountedLimits, amounts: Sequence[int]) -> TakenLimits | None:
        """Take of all of them, or of none: C{None} where one refuses, or must be asked for.

        C{reserve_now} says which. The ticket is settled with amounts in the same order as these.
        """
