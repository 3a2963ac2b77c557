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
from llmproxy.limits.counters.local import LEASE_RETRY_SECONDS, LocalCounters, least_required
from llmproxy.limits.counters.prefetch import BudgetPrefetch
from llmproxy.limits.window import until
from llmproxy.model import Claim, Verdict

WAIT_SECONDS = 9.0  # for a request to be decided, however many wait with it
SWEEP_INTERVAL_SECONDS = 1.0  # seconds between two looks at what is more than this process's share
IDLE_SECONDS = 5.0  # after which what nobody touched is not needed any more
BUDGET_RETENTION_SECONDS = 62 * 86400.0  # seconds for which a budget's spending is kept when its period is over
PURGE_INTERVAL_SECONDS = 3600.0  # seconds between two looks for such
STOP_TIMEOUT_SECONDS = 5.0  # seconds for giving back what is left when the process ends


@implementer(ICounters)
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
        self._local = LocalCounters()
        self._prefetch = BudgetPrefetch(budgets, clock, now)
        self._sweeping = Loop("limits", self._sweep, SWEEP_INTERVAL_SECONDS, clock)
        self.tasks = (self._sweeping,)
        self._next_forgetting = clock.seconds()
        self._next_idle = clock.seconds() + IDLE_SECONDS

    def reserve_now(self, claims: Sequence[Claim]) -> Verdict | None:
        now, local, prefetch = self._clock.seconds(), self._local, self._prefetch
        left: list[int] = []
        for claim in claims:
            if claim.kind == "budget":
                room = prefetch.room(claim)
                if room is None:
                    return None
            else:
                room = local.remaining(claim, now)
            if least_required(claim) > room:  # so the store need not be asked for what comes later
                return self._refused(claims, len(left), now)
            left.append(room)
        slots: list[int] = []
        resets: list[float] = []
        last, reset = -1, 0.0
        for place, (key, kind, limit, amount, _, _) in enumerate(claims):
            if kind == "rate":
                if amount > limit:
                    amount = limit
                slot = local.take(key, amount, now)
                left[place] -= amount
                if slot != last:
                    last, reset = slot, until(slot, now)
                slots.append(slot)
                resets.append(reset)
                continue
            if kind == "lease":
                local.lease(key)
                left[place] -= amount if amount < limit else limit
            else:
                claim = claims[place]
                prefetch.spend(claim)
                left[place] = prefetch.remaining(claim)
            slots.append(0)
            resets.append(0.0)
        return Verdict(None, None, False, tuple(left), tuple(resets), (claims, slots))

    def _refused(self, claims: Sequence[Claim], place: int, now: float) -> Verdict:
        claim = claims[place]
        if claim.kind == "budget":
            wait = LEASE_RETRY_SECONDS if self._prefetch.under_way(claim) else None
        else:
            wait = self._local.wait(claim, now)
        local, prefetch = self._local, self._prefetch
        return Verdict(
            place,
            wait,
            remaining=tuple(
                [prefetch.remaining(c) if c.kind == "budget" else max(local.remaining(c, now), 0) for c in claims]
            ),
            resets=tuple([local.reset(c, now) if c.kind == "rate" else 0.0 for c in claims]),
        )

    @deferred
    async def reserve(self, claims: Sequence[Claim]) -> Verdict:
        budgets = [claim for claim in claims if claim.kind == "budget"]
        waiting = self._prefetch.wait(budgets, lambda: self.reserve_now(claims))
        return await within(WAIT_SECONDS, self._clock, waiting, LimitsUnavailable())

    def settle(self, ticket: Any, amounts: Sequence[int], *, measured: bool = True) -> None:
        claims, slots = ticket
        for claim, slot, amount in zip(claims, slots, amounts, strict=True):
            if claim.kind == "budget":
                self._prefetch.correct(claim, amount, measured=measured)
            else:
                self._local.correct(claim, slot, amount)

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
