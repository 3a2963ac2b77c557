"""Counters in this process: rates and leases for itself, budgets together with all others on the same store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.plugin import IPlugin
from zope.interface import implementer

from llmproxy.base.background import Loop
from llmproxy.base.coroutines import deferred, within
from llmproxy.errors import LimitsUnavailable
from llmproxy.interfaces import IBudgetStore, ICounters, ICountersFactory
from llmproxy.limits.counted import CountedLimits, ILocalCounters
from llmproxy.limits.counters.local import LEASE_RETRY_SECONDS, LocalCounters, least_required
from llmproxy.limits.counters.prefetch import BudgetPrefetch
from llmproxy.limits.counters.ready_limits import ReadyLimits, TakenLimits
from llmproxy.model import Claim, Verdict

WAIT_SECONDS = 9.0  # for a request to be decided, however many wait with it
SWEEP_INTERVAL_SECONDS = 1.0  # seconds between two looks at what is more than this process's share
IDLE_SECONDS = 5.0  # after which what nobody touched is not needed any more
BUDGET_RETENTION_SECONDS = 62 * 86400.0  # seconds for which a budget's spending is kept when its period is over
PURGE_INTERVAL_SECONDS = 3600.0  # seconds between two looks for such
STOP_TIMEOUT_SECONDS = 5.0  # seconds for giving back what is left when the process ends


@implementer(ILocalCounters)
class MemoryCounters(Service):
    """Rates and leases are counted in dictionaries; budgets as L{BudgetPrefetch} says.

    On the usual path nothing is waited for: a claim costs a look-up and an addition.
    """

    name: Any = "counters"
    unsettled = 0
    _log = Logger()

    def __init__(self, budgets: IBudgetStore, clock: IReactorTime, now: Callable[[], float]) -> None:
        """
        @param now: Seconds since the epoch, for what is over.
        """
        self._store = budgets
        self._clock = clock
        self._now = now
        self._known = object()  # another one when a counter was forgotten
        self._local = LocalCounters(self._forgotten)
        self._prefetch = BudgetPrefetch(budgets, clock, now, self._forgotten)
        self._sweeping = Loop("limits", self._sweep, SWEEP_INTERVAL_SECONDS, clock)
        self.tasks = (self._sweeping,)
        self._next_forgetting = clock.seconds()
        self._next_idle = clock.seconds() + IDLE_SECONDS

    def take(self, limits: CountedLimits, amounts: Sequence[int]) -> TakenLimits | None:
        now, ready = self._clock.seconds(), limits.ready
        if ready is None or ready.known is not self._known:
            ready = self._make_ready(limits, now)
        return None if ready is None else ready.take(amounts, now)

    def _make_ready(self, limits: CountedLimits, now: float) -> ReadyLimits | None:
        """Look up what they are taken from; C{None} where a budget is not known."""
        budgets, local, known = self._prefetch.known, self._local, None
        if any(key not in budgets for _, key, _ in limits.budgets):
            return None
        while known is not self._known:  # to make one may forget others
            known = self._known
            limits.ready = ReadyLimits(
                known,
                [(unit, local.lease(key), limit) for unit, key, limit in limits.leases],
                [(unit, local.window(key, now), limit) for unit, key, limit in limits.rates],
                [(unit, budgets[key], limit) for unit, key, limit in limits.budgets],
                {key: budgets[key] for _, key, _ in limits.budgets},
            )
        return limits.ready

    def _forgotten(self) -> None:
        """Limits that were made ready are to be made ready again."""
        self._known = object()

    def reserve_now(self, claims: Sequence[Claim]) -> Verdict | None:
        return self.decide(CountedLimits.of(claims), [claim.amount for claim in claims])

    def decide(self, limits: CountedLimits, amounts: Sequence[int]) -> Verdict | None:
        """As L{reserve_now}; the ticket is settled with amounts in the same order as these."""
        now, claims = self._clock.seconds(), limits.claimed(amounts)
        taken = self.take(limits, amounts)
        if taken is None:
            return self._not_taken(claims, now)
        resets = [0.0] * len(claims)
        for place in limits.rate_places:
            resets[place] = taken.reset
        return Verdict(remaining=tuple(self._left(claims, now)), resets=tuple(resets), ticket=taken)

    def _left(self, claims: Sequence[Claim], now: float) -> list[int]:
        local, prefetch = self._local, self._prefetch
        return [
            prefetch.remaining(each) if each.kind == "budget" else max(local.remaining(each, now), 0) for each in claims
        ]

    def budget_left(self, claim: Claim) -> int:
        """What is left of a whole budget, as far as is known here."""
        return self._prefetch.remaining(claim)

    def _not_taken(self, claims: Sequence[Claim], now: float) -> Verdict | None:
        """The first that refuses; C{None} where the store must be asked first."""
        for place, claim in enumerate(claims):
            room = self._prefetch.room(claim) if claim.kind == "budget" else self._local.remaining(claim, now)
            if room is None:
                return None
            if least_required(claim) > room:  # so the store need not be asked for what comes later
                return self._refused(claims, place, now)
        raise AssertionError("What there is room for was not taken.")

    def _refused(self, claims: Sequence[Claim], place: int, now: float) -> Verdict:
        claim = claims[place]
        if claim.kind == "budget":
            wait = LEASE_RETRY_SECONDS if self._prefetch.under_way(claim) else None
        else:
            wait = self._local.wait(claim, now)
        resets = [self._local.reset(each, now) if each.kind == "rate" else 0.0 for each in claims]
        return Verdict(place, wait, remaining=tuple(self._left(claims, now)), resets=tuple(resets))

    def reserve(self, claims: Sequence[Claim]) -> Deferred[Verdict]:
        return self.reserve_of(CountedLimits.of(claims), [claim.amount for claim in claims])

    @deferred
    async def reserve_of(self, limits: CountedLimits, amounts: Sequence[int]) -> Verdict:
        """As L{reserve}; the ticket is settled with amounts in the same order as these."""
        budgets = [claim for claim in limits.claimed(amounts) if claim.kind == "budget"]
        waiting = self._prefetch.wait(budgets, lambda: self.decide(limits, amounts))
        return await within(WAIT_SECONDS, self._clock, waiting, LimitsUnavailable())

    def settle(self, ticket: TakenLimits, amounts: Sequence[int], *, measured: bool = True) -> None:
        ticket.limits.settle(ticket, amounts, measured=measured)

    def untold(self, amounts: Mapping[str, int]) -> None:
        self._prefetch.untold(amounts)

    def corrected(self, amounts: Mapping[str, tuple[int, float]]) -> None:
        """What was given back is in the store, where it is asked for."""
        for key in amounts:
            self._prefetch.look_again(key)

    @deferred
    async def used(self, claims: Sequence[Claim]) -> list[int]:
        now, keys = self._clock.seconds(), [claim.key for claim in claims if claim.kind == "budget"]
        spent = await self._store.budgets_spent(keys) if keys else {}
        return [
            max(spent.get(claim.key, 0) - self._prefetch.spare(claim.key), 0)
            if claim.kind == "budget"
            else claim.limit - self._local.remaining(claim, now)
            for claim in claims
        ]

    # Service

    def startService(self) -> None:
        Service.startService(self)
        self._sweeping.start()

    @deferred
    async def stopService(self) -> None:
        Service.stopService(self)
        self._sweeping.stop()
        giving = Deferred.fromCoroutine(self._prefetch.give_back(idle=True, all_of_it=True))
        try:
            await within(STOP_TIMEOUT_SECONDS, self._clock, giving, LimitsUnavailable())
        except LimitsUnavailable:
            self._log.warn("What was left of budgets was not given back; it stays spent.")

    @deferred
    async def _sweep(self) -> None:
        idle = self._clock.seconds() >= self._next_idle
        if idle:
            self._next_idle = self._clock.seconds() + IDLE_SECONDS
        await self._prefetch.give_back(idle=idle)
        if self._clock.seconds() >= self._next_forgetting:
            self._next_forgetting = self._clock.seconds() + PURGE_INTERVAL_SECONDS
            try:
                await self._store.forget_budgets(self._now() - BUDGET_RETENTION_SECONDS)
            except Exception as e:  # it is tried again in an hour
                self._log.warn("Budgets of the past could not be removed: {error}", error=str(e))


@implementer(IPlugin, ICountersFactory)
class MemoryCountersFactory:
    """C{limits: {backend: memory}}."""

    name = "memory"

    def counters(self, settings: Any, reactor: Any, budgets: IBudgetStore, now: Callable[[], float]) -> ICounters:
        return MemoryCounters(budgets, reactor, now)


__all__ = ["MemoryCounters", "MemoryCountersFactory"]
