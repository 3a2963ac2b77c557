"""What is asked of counters elsewhere, and what they say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from twisted.internet.defer import Deferred

from llmproxy.limits.counted import CountedLimits
from llmproxy.limits.counters.ready_limits import TakenLimits
from llmproxy.limits.window import SLOTS_PER_SECOND, WINDOW_SECONDS
from llmproxy.model import Claim

TAKEN_SECONDS = WINDOW_SECONDS + 1 / SLOTS_PER_SECOND  # for which what has just been used counts, at most
LOOK = 0  # the number of what is only looked at

RemoteLimit = tuple[int, str, int, bool]
"""The index of what is taken among a request's amounts, the limit's key, what it allows, and whether it is a rate."""


class RemoteLimits:
    """The limits of a request, by where they are counted: made ready once for a L{CountedLimits}.

    @ivar limits: Those that are counted elsewhere, in their order, and C{places}: their places among all.
    @ivar leases: The keys of what is held at once; C{rates}: the rates; C{rates_left}: for each of these its place
        among C{limits}, and what it allows.
    @ivar rate_units: The indices of what is taken of rates.
    @ivar taken_resets: Seconds until each is whole of which something has just been taken.
    @ivar budgets: Those that this process counts; C{None} where there are none.
    """

    __slots__ = (
        "budget_places", "budgets", "leases", "limits", "places", "rate_units", "rates", "rates_left", "taken_resets",
    )  # fmt: skip

    def __init__(self, limits: CountedLimits) -> None:
        each = list(enumerate(zip(limits.claims, limits.units, strict=True)))
        shared = [(place, claim, unit) for place, (claim, unit) in each if claim.kind != "budget"]
        budgets = [(place, claim, unit) for place, (claim, unit) in each if claim.kind == "budget"]
        self.limits: tuple[RemoteLimit, ...] = tuple(
            [(unit, claim.key, claim.limit, claim.kind == "rate") for _, claim, unit in shared]
        )
        self.leases = tuple([key for _, key, _, is_rate in self.limits if not is_rate])
        self.rates = tuple([(unit, key, limit) for unit, key, limit, is_rate in self.limits if is_rate])
        self.rates_left = tuple([(place, limit) for place, (_, _, limit, is_rate) in enumerate(self.limits) if is_rate])
        self.places = tuple([place for place, _, _ in shared])
        self.rate_units = tuple(dict.fromkeys(unit for unit, _, _, is_rate in self.limits if is_rate))
        self.taken_resets = tuple([TAKEN_SECONDS if is_rate else 0.0 for _, _, _, is_rate in self.limits])
        self.budgets = CountedLimits([each[1] for each in budgets], [each[2] for each in budgets]) if budgets else None
        self.budget_places = tuple([place for place, _, _ in budgets])


def remote_limits(limits: CountedLimits) -> RemoteLimits:
    """These limits, made ready."""
    if limits.elsewhere is None:
        limits.elsewhere = RemoteLimits(limits)
    made: RemoteLimits = limits.elsewhere
    return made


class RemoteTicket(NamedTuple):
    """What was reserved for a request.

    @ivar local: What this process counts of it.
    @ivar number: Names what is counted elsewhere; L{LOOK} where nothing is.
    @ivar slot: The slot in which that was taken, by the clock of those who count.
    """

    local: TakenLimits | None
    limits: RemoteLimits | None = None
    amounts: Sequence[int] = ()
    number: int = LOOK
    slot: int = 0


class RemoteAnswer(NamedTuple):
    """What those who count say, by the order of the limits.

    @ivar refused: The index of the first that refuses; C{None} where none does.
    """

    refused: int | None
    wait: float | None
    slot: int
    used: Sequence[int]
    resets: Sequence[float]


class RemoteQuestion:
    """Limits that are asked about.

    @ivar number: Under which they are reserved; L{LOOK}: it is only looked.
    @ivar puts_back: Whether what was lost there is to be put back first.
    """

    __slots__ = ("amounts", "limits", "number", "puts_back")

    def __init__(self, limits: RemoteLimits, amounts: Sequence[int], number: int) -> None:
        self.limits = limits
        self.amounts = amounts
        self.number = number
        self.puts_back = False

    def take_grant(self, slot: int, used: Sequence[int]) -> None:
        """It has been reserved in that slot: what is used of each limit now."""
        raise NotImplementedError

    def take_answer(self, answer: RemoteAnswer) -> None:
        """Those who count have decided."""
        raise NotImplementedError

    def take_failure(self, error: BaseException) -> None:
        """They have not."""
        raise NotImplementedError


class UseQuestion(RemoteQuestion):
    """Asks what is used.

    @ivar used: By the order of the limits.
    """

    __slots__ = ("used",)

    def __init__(self, claims: Sequence[Claim]) -> None:
        super().__init__(RemoteLimits(CountedLimits.of(claims)), [0] * len(claims), LOOK)
        self.used: Deferred[Sequence[int]] = Deferred()

    def take_answer(self, answer: RemoteAnswer) -> None:
        self.used.callback(answer.used)

    def take_failure(self, error: BaseException) -> None:
        self.used.errback(error)
