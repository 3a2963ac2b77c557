"""Counters in Redis: true for all processes that use the same one."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from llmproxy.base.background import Loop, Task
from llmproxy.base.coroutines import deferred
from llmproxy.errors import LimitsUnavailable
from llmproxy.instruments import Instrument
from llmproxy.interfaces import IBudgetStore, ICounters, IInstrumented, IOpenable
from llmproxy.limits.counters.eviction import INFO_MEMORY, EvictionGuard
from llmproxy.limits.counters.fallback import LocalFallback
from llmproxy.limits.counters.local import amount_within_limit
from llmproxy.limits.counters.memory import MemoryCounters
from llmproxy.limits.counters.recent_use import RecentUse
from llmproxy.limits.counters.redis_batches import RateSettlement, RedisAnswer, RedisBatches, Row
from llmproxy.limits.counters.redis_scripts import RENEW
from llmproxy.limits.counters.redis_verdicts import RedisTicket, RedisVerdict
from llmproxy.limits.counters.remote import RemoteCounters
from llmproxy.limits.window import SLOTS_PER_SECOND
from llmproxy.model import Claim
from llmproxy.redis import RedisClient, RedisRefused, RedisUnavailable

CALL_TIMEOUT_SECONDS = (
    1.0  # seconds; longer than a look into a cache may take: a reservation that comes late stays made
)
RENEWAL_INTERVAL_SECONDS = 1.0  # seconds between two looks at what is to be renewed or told
EVICTION_CHECK_SECONDS = 30.0  # between two looks whether the server evicts
BATCH_ENTRIES = 200  # leases renewed, requests settled, or rates put back, at once
MAX_LIMIT = 2**53  # that Lua counts up to exactly; nobody reaches a larger one
MAX_UNSENT_SETTLEMENTS = 10_000  # settlements that may wait for Redis to come back


@implementer(ICounters, IInstrumented, IOpenable)
class RedisCounters(RemoteCounters):
    """Rates and requests at once in Redis: in a turn of the reactor one call for all that is reserved, and one for all
    that is settled; now and then one that renews all leases of this process. Budgets are in the store, as with
    L{MemoryCounters}, whatever happens to Redis.

    While Redis cannot be asked each claim goes by its C{on_loss}. A reservation whose reply did not come in time may
    have been made: its lease ends by itself. What Redis has lost, a key or all of them, every process puts back as far
    as it has used it, before it takes more.

    @ivar owed: Settlements that wait for Redis.
    """

    name: Any = "counters"
    silences = (RedisUnavailable, RedisRefused)
    _log = Logger()

    def __init__(
        self,
        redis: RedisClient,
        clock: IReactorTime,
        budgets: IBudgetStore,
        now: Callable[[], float],
        *,
        prefix: str,
        lease: float,
        process: str,
        timeout: float = CALL_TIMEOUT_SECONDS,
        beat: float = RENEWAL_INTERVAL_SECONDS,
        guard: EvictionGuard | None = None,
    ) -> None:
        """
        @param guard: Looks at the server now and then; the connections of C{redis} are prepared by it.
        @param now: Seconds since the epoch.
        @param process: A name that no other process has.
        """
        MultiService.__init__(self)
        self.unsettled = 0
        self.owed: deque[tuple[RedisTicket, list[int]]] = deque()
        self.redis = redis
        self.local = MemoryCounters(budgets, clock, now)
        for service in (redis, self.local):
            self.addService(service)  # type: ignore[no-untyped-call]
        self._clock = clock
        self._prefix = f"{prefix}limits:"
        self._lease = lease
        self._process = process
        self._timeout = timeout
        self._numbers = count(1)
        self._batches = RedisBatches(
            redis, clock, lease=lease, process=process, timeout=timeout, unsettled=self._unsettled
        )
        self._recent = RecentUse()
        self._holders: dict[str, dict[str, None]] = defaultdict(dict)  # of leases, by key
        self._fallback = LocalFallback(self.local, self._own_use)
        self._epoch = b""
        self._slots_ahead = 0.0  # of Redis's clock before this process's
        self._guard = guard
        self._next_look = 0.0
        self._renewed = -lease
        self._beating = Loop("limits", self._beat, beat, clock)

    def instruments(self) -> Iterator[Instrument]:
        yield from self.redis.instruments("limits")

    # ICounters

    @property
    def is_available(self) -> bool:
        return self.redis.available

    def _new_holder(self) -> str:
        return f"{self._process}:{next(self._numbers)}"

    def _taken(self, ticket: RedisTicket, answer: RedisVerdict) -> None:
        for claim, generation in zip(ticket.claims, answer.generations, strict=True):
            if claim.kind == "lease":
                self._holders[claim.key][ticket.holder] = None
            else:
                self._recent.add(claim.key, generation, answer.slot, amount_within_limit(claim))

    # Asking Redis

    async def _ask(self, holder: str, claims: Sequence[Claim]) -> RedisVerdict:
        """Reserve, or look; what Redis has lost is put back first."""
        answer = await self._question(holder, claims, put_back=False)
        if answer.refused < 0:
            answer = await self._question(holder, claims, put_back=True)
        refused, wait, slot, used, resets, generations = answer
        if refused < 0 or len(generations) != len(claims):
            raise LimitsUnavailable  # it loses keys faster than they are put back
        self._slots_ahead = slot - self._clock.seconds() * SLOTS_PER_SECOND
        for claim, generation in zip(claims, generations, strict=True):
            if generation:
                self._recent.set_generation(claim.key, generation)
        return RedisVerdict(
            refused - 1 if refused else None,
            None if wait < 0 else wait / 1000,
            slot,
            used,
            [milliseconds / 1000 for milliseconds in resets],
            generations,
        )

    def _question(self, holder: str, claims: Sequence[Claim], *, put_back: bool) -> Deferred[RedisAnswer]:
        rows: list[Row] = []
        slot = self._slot()
        for claim in claims:
            limit = min(claim.limit, MAX_LIMIT)
            if claim.kind == "lease":
                holders = self._holders.get(claim.key, {})
                rows.append(["l", limit, claim.amount, len(holders), ",".join(holders) if put_back else ""])
            else:
                generation = self._recent.generation(claim.key, slot)
                slots = self._recent.slots(claim.key) if put_back and generation else ""
                rows.append(["r", limit, amount_within_limit(claim), generation, slots])
        return self._batches.reserve([self._prefix + claim.key for claim in claims], holder, rows)

    def _slot(self) -> int:
        """Redis's present slot, as far as is known."""
        return int(self._clock.seconds() * SLOTS_PER_SECOND + self._slots_ahead)

    def _own_use(self, key: str) -> int:
        """What this process uses or holds of a limit, as far as it is counted in Redis."""
        return self._recent.usage(key, self._slot()) + len(self._holders.get(key, ()))

    # Settling

    def settle(self, ticket: Any, amounts: Sequence[int], *, measured: bool = True) -> None:
        if ticket.local is not None:
            self.local.settle(ticket.local, [amounts[place] for place in ticket.local_places], measured=measured)
        if not ticket.holder:
            return
        more: list[int] = []
        for claim, place in zip(ticket.claims, ticket.places, strict=True):
            more.append(amounts[place] - amount_within_limit(claim) if claim.kind == "rate" else 0)
            if claim.kind == "rate":
                self._recent.correct(claim.key, ticket.slot, more[-1])
            else:
                self._release(claim.key, ticket.holder)
        if self.redis.available:
            self._batches.settle(self._settlement(ticket, more))
        elif len(self.owed) < MAX_UNSENT_SETTLEMENTS:
            self.owed.append((ticket, more))
        else:
            self.unsettled += 1

    def _release(self, key: str, holder: str) -> None:
        holders = self._holders.get(key)
        if holders is not None:
            holders.pop(holder, None)
            if not holders:
                del self._holders[key]

    def _settlement(self, ticket: RedisTicket, more: Sequence[int]) -> RateSettlement:
        rows: list[Row] = [
            ["l", 0, ""] if claim.kind == "lease" else ["r", amount, self._recent.last_generation(claim.key)]
            for claim, amount in zip(ticket.claims, more, strict=True)
        ]
        return RateSettlement([self._prefix + claim.key for claim in ticket.claims], ticket.holder, ticket.slot, rows)

    def _unsettled(self, failure: Failure, count: int) -> None:
        self.unsettled += count
        if not failure.check(RedisUnavailable, RedisRefused):
            self._log.failure("Requests could not be settled.", failure)

    def corrected(self, amounts: Mapping[str, tuple[int, float]]) -> None:
        self.local.corrected(amounts)

    @deferred
    async def used(self, claims: Sequence[Claim]) -> list[int]:
        counted: dict[int, int] = {}
        budgets = [place for place, claim in enumerate(claims) if claim.kind == "budget"]
        shared = [place for place, claim in enumerate(claims) if claim.kind != "budget"]
        if budgets:
            counted.update(zip(budgets, await self.local.used([claims[p] for p in budgets]), strict=True))
        if shared:
            try:
                answer = await self._ask("", [claims[place]._replace(amount=0) for place in shared])
            except (RedisUnavailable, RedisRefused) as e:
                raise LimitsUnavailable from e
            counted.update(zip(shared, answer.used, strict=True))
        return [counted[place] for place in range(len(claims))]

    # Service

    @property
    def tasks(self) -> list[Task]:
        """What goes on in the background."""
        return [self._beating, *self.local.tasks, *self.redis.tasks]

    def open(self) -> Deferred[None]:
        """Fire once it is known that the server may be used, or that it is not there; L{CannotStart} if it may not."""
        return succeed(None) if self._guard is None else self._guard.open()

    def startService(self) -> None:
        MultiService.startService(self)
        self._beating.start(now=True)

    @deferred
    async def stopService(self) -> None:
        self._beating.stop()
        self._batches.flush()
        stopped = MultiService.stopService(self)
        if stopped is not None:
            await stopped

    def _beat(self) -> None:
        """Tell what is owed, and renew what is held, a part of it in each call."""
        keys = self._recent.keys(self._slot())
        if not self.redis.available:
            return
        for _ in range(min(len(self.owed), BATCH_ENTRIES)):
            self._batches.settle(self._settlement(*self.owed.popleft()))
        now = self._clock.seconds()
        if self._guard is not None and now >= self._next_look:
            self._next_look = now + EVICTION_CHECK_SECONDS
            self.redis.call(*INFO_MEMORY, timeout=self._timeout).addCallback(self._guard.judge).addErrback(self._judged)
        if now - self._renewed < self._lease / 3:
            self._renew([], keys)
            return
        self._renewed = now
        self._renew_all(keys)

    def _judged(self, failure: Failure) -> None:
        """The server was not heard, or must not be used any more: what is connected anew is looked at again."""
        failure.trap(RedisUnavailable, RedisRefused)
        if self._guard is not None and self._guard.refusal:
            self.redis.drop(self._guard.refusal)

    def _renew_all(self, keys: Sequence[str]) -> None:
        held = [(key, holder) for key, holders in self._holders.items() for holder in holders]
        for start in range(0, len(held) or 1, BATCH_ENTRIES):
            self._renew(held[start : start + BATCH_ENTRIES], keys)

    def _renew(self, held: Sequence[tuple[str, str]], rates: Sequence[str]) -> None:
        keys = [self._prefix + "epoch", self._prefix + "processes", *(self._prefix + key for key, _ in held)]
        holders = [self._process, *(holder for _, holder in held)]
        renewing = self.redis.script(RENEW, keys, [int(self._lease * 1000), *holders], self._timeout)
        renewing.addCallback(self._counted, rates)
        renewing.addErrback(lambda failure: failure.trap(RedisUnavailable, RedisRefused) and None)  # tried again

    def _counted(self, reply: Sequence[Any], rates: Sequence[str]) -> None:
        processes, epoch = reply
        self._fallback.processes = max(processes, 1)
        known, self._epoch = self._epoch, epoch
        if known not in (b"", epoch):  # it has lost everything: others are to know what this process uses
            self._log.warn("Redis has lost what it knew of limits; {count} rates are put back.", count=len(rates))
            self._renew_all([])
            for start in range(0, len(rates), BATCH_ENTRIES):
                claims = [Claim(key, "rate", 0, 0) for key in rates[start : start + BATCH_ENTRIES]]
                Deferred.fromCoroutine(self._ask("", claims)).addErrback(
                    lambda failure: failure.trap(RedisUnavailable, RedisRefused, LimitsUnavailable) and None
                )
