"""Limits as counters take from them: those of a plan are made ready once, and not for each request."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any, ClassVar, Protocol

from zope.interface import Attribute

from llmproxy.interfaces import ICounters
from llmproxy.limits.counters.ready_limits import ReadyLimits, TakenLimits
from llmproxy.model import Claim, Verdict

CountedLimit = tuple[int, str, int]
"""The index of what is taken among a request's amounts, the limit's key, and what it allows."""


class CountedLimits:
    """Limits that are taken from together.

    @ivar claims: All of them, in their order, without what a request takes.
    @ivar units: For each the index of what is taken of it among a request's amounts.
    @ivar leases: By kind; likewise C{rates} and C{budgets}.
    @ivar rate_places: The places of the rates among all.
    @ivar begins: When they began to be these, in seconds since the epoch, as periods of budgets did; C{ends}: when they
        are others.
    @ivar observed: Whether those who observe budgets know that these are in use.
    @ivar ready: What counters in this process keep of them; C{elsewhere}: what others do. C{None} as long as there is
        nothing.
    """

    __slots__ = (
        "begins",
        "budgets",
        "claims",
        "elsewhere",
        "ends",
        "leases",
        "observed",
        "rate_places",
        "rates",
        "ready",
        "units",
    )

    def __init__(self, claims: Sequence[Claim], units: Sequence[int], begins: float = 0.0, ends: float = inf) -> None:
        by_kind: dict[str, list[CountedLimit]] = {"lease": [], "rate": [], "budget": []}
        for unit, claim in zip(units, claims, strict=True):
            by_kind[claim.kind].append((unit, claim.key, claim.limit))
        self.claims = tuple(claims)
        self.units = tuple(units)
        self.leases, self.rates, self.budgets = map(tuple, by_kind.values())
        self.rate_places = tuple([place for place, claim in enumerate(claims) if claim.kind == "rate"])
        self.begins = begins
        self.ends = ends
        self.observed = False
        self.ready: ReadyLimits | None = None
        self.elsewhere: Any = None

    @classmethod
    def of(cls, claims: Sequence[Claim]) -> CountedLimits:
        """Those of claims, of which each has an amount of its own."""
        return cls(claims, range(len(claims)))

    def claimed(self, amounts: Sequence[int]) -> list[Claim]:
        """What a request claims of each that takes these amounts."""
        return [claim._replace(amount=amounts[unit]) for claim, unit in zip(self.claims, self.units, strict=True)]


NO_LIMITS = CountedLimits((), (), 0.0, 0.0)


class ILocalCounters(ICounters):
    """Counters in this process, which take of all limits of a request at once."""

    def take(limits: CountedLimits, amounts: Sequence[int]) -> TakenLimits | None:
        """Take of all of them, or of none: C{None} where one refuses, or must be asked for.

        C{reserve_now} says which. The ticket is settled with amounts in the same order as these.
        """


class LimitsWaiter(Protocol):
    """Whoever waits until others have decided on a request.

    @ivar needs_verdict: Whether it is told by a verdict also where all of its limits admit it.
    """

    limits: CountedLimits
    amounts: Any
    needs_verdict: ClassVar[bool]

    def grant(self, ticket: Any, left: Sequence[int], reset: float) -> None:
        """All of its limits admit it: what is left of each rate, and seconds until all of them are whole."""

    def decided(self, verdict: Verdict) -> None:
        """By the places of the claims; its ticket is settled with amounts in the order of C{amounts}."""

    def failed(self, error: BaseException) -> None:
        """There is no verdict."""


class IRemoteCounters(ICounters):
    """Counters elsewhere, which are asked for all limits of a request at once."""

    is_available = Attribute("Whether they can be asked now; else each limit goes by its C{on_loss} (bool).")

    def begin(waiter: LimitsWaiter) -> None:
        """Have it decided, and tell the waiter once, be it at once or later."""

    def tell_settled() -> None:
        """What has been settled so far is on its way, before anything else that is sent from now on."""
