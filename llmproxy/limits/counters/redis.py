"""Counters in Redis: true for all processes that use the same one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import count
from os import urandom
from random import random
from typing import Any, NamedTuple

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.plugin import IPlugin
from twisted.python.failure import Failure
from zope.interface import implementer

from llmproxy.aio import deferred, within
from llmproxy.background import Loop, Task
from llmproxy.errors import LimitsUnavailable
from llmproxy.interfaces import IBudgetStore, ICounters, ICountersFactory
from llmproxy.limits.counters.fallback import Shares, Taken
from llmproxy.limits.counters.local import fitting
from llmproxy.limits.counters.redis_scripts import RENEW, RESERVE, SEED, SETTLE
from llmproxy.limits.counters.spend_buffer import Spending
from llmproxy.model import Claim, Verdict
from llmproxy.redis import Redis, RedisRefused, RedisUnavailable, connect

TIMEOUT = 1.0  # seconds; longer than a look into a cache may take: a reservation that comes late stays made
BEAT = 1.0  # seconds between two looks at what is to be renewed or told
BATCH = 200  # leases renewed, or requests settled, at once
OWED = 10_000  # settlements that may wait for Redis to come back
STOPPING = 5.0  # seconds for the store to hear what was spent last
KEPT = 86_400_000  # milliseconds for which a budget's spending is kept when its period is over

_KINDS = {"rate": "r", "lease": "l", "budget": "b"}


class Held(NamedTuple):
    """A ticket for what was reserved in Redis, in that epoch of it."""

    holder: str
    slot: int
    epoch: bytes
    claims: tuple[Claim, ...]


@implementer(ICounters)
class RedisCounters(MultiService):
    """One call to reserve, one to settle, and one now and then that renews all leases of this process.

    While Redis cannot be asked each claim goes by its C{on_loss}. What such requests spent of budgets is told to Redis
    when it is back. What is spent of budgets is kept in the store too, a second later: so a Redis that has forgotten
    them, or a budget that was counted elsewhere before, begins where the store says. A reservation whose reply did not
    come in time may have been made: its lease ends by itself, its part of a budget stays charged.

    @ivar owed: Settlements that wait for Redis.
    """

    name: Any = "counters"
    _log = Logger()

    def __init__(
        self,
        redis: Redis,
        clock: IReactorTime,
        budgets: IBudgetStore,
        *,
        prefix: str,
        lease: float,
        process: str,
        timeout: float = TIMEOUT,
        beat: float = BEAT,
    ) -> None:
        """
        @param process: A name that no other process has.
        """
        MultiService.__init__(self)
        self.addService(redis)  # type: ignore[no-untyped-call]
        self.unsettled = 0
        self.owed: deque[tuple[Held, list[int]]] = deque()
        self._redis = redis
        self._spending = Spending(budgets)
        self._epoch = b""
        self._clock = clock
        self._prefix = f"{prefix}limits:"
        self._lease = lease
        self._process = process
        self._timeout = timeout
        self._numbers = count(1)
        self._leases: dict[str, list[str]] = {}
        self._shares = Shares()
        self._renewed = -lease
        self._beating = Loop("limits", self._beat, beat, clock)

    # ICounters

    def reserve_now(self, claims: Sequence[Claim]) -> Verdict | None:
        return None if self._redis.available else self._shares.reserve(claims, self._clock.seconds())

    def reserve(self, claims: Sequence[Claim]) -> Deferred[Verdict]:
        """Whoever gives up waiting does not stop what is under way: what is then reserved is given back."""
        answer: Deferred[Verdict] = Deferred()

        def told(verdict: Verdict) -> None:
            if not answer.called:
                answer.callback(verdict)
            elif verdict.ticket is not None:
                self.settle(verdict.ticket, [0] * len(claims))

        def failed(failure: Failure) -> None:
            if not answer.called:
                answer.errback(failure)

        Deferred.fromCoroutine(self._asked(claims)).addCallbacks(told, failed)
        return answer

    async def _asked(self, claims: Sequence[Claim]) -> Verdict:
        holder = f"{self._process}:{next(self._numbers)}"
        try:
            reply = await self._script(holder, claims)
            if reply[0] < 0:
                await self._seed([claim for claim in claims if claim.kind == "budget"])
                reply = await self._script(holder, claims)
        except (RedisUnavailable, RedisRefused):
            return self._shares.reserve(claims, self._clock.seconds())
        refused, wait, slot, self._epoch, *told = reply
        if refused < 0:
            raise LimitsUnavailable  # it forgets faster than it is told
        remaining = tuple([max(claim.limit - used, 0) for claim, used in zip(claims, told[::2], strict=True)])
        for claim, left in zip(claims, remaining, strict=True):
            if claim.kind == "budget":
                self._shares.heard(claim.key, left)
        resets = tuple([milliseconds / 1000 for milliseconds in told[1::2]])
        if refused:
            return Verdict(refused - 1, None if wait < 0 else wait / 1000, remaining=remaining, resets=resets)
        held = [claim.key for claim in claims if claim.kind == "lease"]
        if held:
            self._leases[holder] = held
        ticket = Held(holder, slot, self._epoch, tuple(claims))
        return Verdict(None, remaining=remaining, resets=resets, ticket=ticket)

    async def _seed(self, claims: Sequence[Claim]) -> None:
        """Tell Redis what the store knows of budgets that it does not know."""
        spent = await self._spending.known([claim.key for claim in claims])
        arguments: list[str | int] = [KEPT]
        for claim in claims:
            arguments += (spent.get(claim.key, 0), int(claim.ends * 1000))
        await self._redis.script(SEED, self._keys(claims), arguments, self._timeout)

    def _script(self, holder: str, claims: Sequence[Claim]) -> Deferred[list[Any]]:
        arguments: list[str | int] = [holder, int(self._lease * 1000), KEPT]
        for claim in claims:
            amount = fitting(claim) if claim.kind == "rate" else claim.amount
            arguments += (_KINDS[claim.kind], claim.limit, amount, int(claim.ends * 1000))
        return self._redis.script(RESERVE, self._keys_after_epoch(claims), arguments, self._timeout)

    def _keys(self, claims: Sequence[Claim]) -> list[str]:
        return [self._prefix + claim.key for claim in claims]

    def _keys_after_epoch(self, claims: Sequence[Claim]) -> list[str]:
        return [self._prefix + "epoch", *self._keys(claims)]

    def settle(self, ticket: Any, amounts: Sequence[int]) -> None:
        spent = [(claim, a) for claim, a in zip(ticket.claims, amounts, strict=True) if claim.kind == "budget"]
        for claim, amount in spent:
            self._spending.add(claim, amount)
        if isinstance(ticket, Taken):
            self._shares.settle(ticket, amounts)
            if spent:  # nothing of that was claimed in Redis, which is to hear of it
                claims = tuple([claim._replace(amount=0) for claim, _ in spent])
                self._owe(Held("", 0, self._epoch, claims), [amount for _, amount in spent])
            return
        self._leases.pop(ticket.holder, None)
        if not self._redis.available:
            self._owe(ticket, list(amounts))
            return
        self._tell(ticket, amounts)

    def _tell(self, held: Held, amounts: Sequence[int]) -> None:
        arguments: list[str | int | bytes] = [held.holder, held.slot, held.epoch]
        for claim, amount in zip(held.claims, amounts, strict=True):
            claimed = fitting(claim) if claim.kind == "rate" else claim.amount
            arguments += (_KINDS[claim.kind], claimed, amount)
        # One whose reply does not come may have been done, and would be wrong if it were done twice.
        keys = self._keys_after_epoch(held.claims)
        self._redis.script(SETTLE, keys, arguments, self._timeout).addErrback(self._untold)

    def _untold(self, failure: Failure) -> None:
        self.unsettled += 1
        if not failure.check(RedisUnavailable, RedisRefused):
            self._log.failure("A request could not be settled.", failure)

    def _owe(self, held: Held, amounts: list[int]) -> None:
        if len(self.owed) >= OWED:
            self.unsettled += 1
        else:
            self.owed.append((held, amounts))

    @deferred
    async def used(self, claims: Sequence[Claim]) -> list[int]:
        budgets = [claim for claim in claims if claim.kind == "budget"]
        try:
            if budgets:
                await self._seed(budgets)
            reply = await self._script("", [claim._replace(amount=0) for claim in claims])
        except (RedisUnavailable, RedisRefused) as e:
            raise LimitsUnavailable from e
        return list(reply[4::2])

    # Service

    @property
    def tasks(self) -> list[Task]:
        """What goes on in the background."""
        return [self._beating, *self._redis.tasks]

    def startService(self) -> None:
        MultiService.startService(self)
        self._beating.start(now=True)

    @deferred
    async def stopService(self) -> None:
        self._beating.stop()
        stopped = MultiService.stopService(self)
        if stopped is not None:
            await stopped
        try:
            await within(STOPPING, self._clock, self._spending.save(), LimitsUnavailable())
        except LimitsUnavailable:
            self._log.warn("What was spent of budgets in the last second is not in the store.")

    def _beat(self) -> None:
        """Keep what was spent, tell what is owed, and renew what is held, a part of it in each call."""
        self._spending.save()
        if not self._redis.available:
            return
        for _ in range(min(len(self.owed), BATCH)):
            self._tell(*self.owed.popleft())
        now = self._clock.seconds()
        if now - self._renewed >= self._lease / 3:
            self._renewed = now
            held = [(key, holder) for holder, keys in self._leases.items() for key in keys]
            for start in range(0, len(held) or 1, BATCH):
                self._renew(held[start : start + BATCH])

    def _renew(self, held: Sequence[tuple[str, str]]) -> None:
        keys = [self._prefix + "processes", *(self._prefix + key for key, _ in held)]
        holders = [self._process, *(holder for _, holder in held)]
        renewing = self._redis.script(RENEW, keys, [int(self._lease * 1000), *holders], self._timeout)
        renewing.addCallbacks(self._counted, lambda failure: None)  # it is tried again, two times before they end

    def _counted(self, processes: int) -> None:
        self._shares.processes = max(processes, 1)


@implementer(IPlugin, ICountersFactory)
class RedisCountersFactory:
    """C{limits: {backend: redis}}."""

    name = "redis"

    def counters(self, settings: Any, reactor: Any, budgets: IBudgetStore, now: Callable[[], float]) -> ICounters:
        return RedisCounters(
            connect(settings.redis, reactor, random),
            reactor,
            budgets,
            prefix=settings.redis.key_prefix,
            lease=settings.limits.lease,
            process=urandom(9).hex(),
        )
