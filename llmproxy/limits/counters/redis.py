"""Counters in Redis: true for all processes that use the same one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from llmproxy.interfaces import IBudgetStore, IInstrumented, IOpenable
from llmproxy.limits.counted import IRemoteCounters
from llmproxy.limits.counters.eviction import INFO_MEMORY, EvictionGuard
from llmproxy.limits.counters.fallback import LocalFallback
from llmproxy.limits.counters.memory import MemoryCounters
from llmproxy.limits.counters.redis_batches import MAX_BATCH, RedisBatches
from llmproxy.limits.counters.redis_scripts import RENEW
from llmproxy.limits.counters.redis_use import RedisUse, Settlements
from llmproxy.limits.counters.remote import RemoteCounters
from llmproxy.limits.counters.remote_limits import RemoteQuestion, RemoteTicket
from llmproxy.model import Claim
from llmproxy.redis import RedisClient, RedisRefused, RedisUnavailable

CALL_TIMEOUT_SECONDS = (
    1.0  # seconds; longer than a look into a cache may take: a reservation that comes late stays made
)
RENEWAL_INTERVAL_SECONDS = 1.0  # seconds between two looks at what is to be renewed or told
EVICTION_CHECK_SECONDS = 30.0  # between two looks whether the server evicts
BATCH_ENTRIES = 200  # leases renewed, requests settled, or rates put back, at once
MAX_UNSENT_SETTLEMENTS = 10_000  # settlements that may wait for Redis to come back


@implementer(IRemoteCounters, IInstrumented, IOpenable)
class RedisCounters(RemoteCounters):
    """Rates and requests at once in Redis: in a turn of the reactor one call for all that is reserved and settled; now
    and then one that renews all leases of this process. Budgets are in the store, as with
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
        @param redis: An ordered one: what is renewed before it is let go of must not come after that.
        @param guard: Looks at the server now and then; the connections of C{redis} are prepared by it.
        @param now: Seconds since the epoch.
        @param process: A name that no other process has.
        """
        super().__init__()
        self.unsettled = 0
        self.owed: deque[Settlements] = deque()
        self.redis = redis
        self.local = MemoryCounters(budgets, clock, now)
        for service in (redis, self.local):
            self.addService(service)  # type: ignore[no-untyped-call]
        self._clock = clock
        self._prefix = f"{prefix}limits:"
        self._lease = lease
        self._process = process
        self._timeout = timeout
        self._use = RedisUse(process)
        self._batches = RedisBatches(
            redis, clock, self._use, prefix=self._prefix, lease=lease, timeout=timeout, unsettled=self._unsettled
        )
        self._fallback = LocalFallback(self.local, self._own_use)
        self._epoch = b""
        self._guard = guard
        self._next_look = 0.0
        self._renewed = -lease
        self._beating = Loop("limits", self._beat, beat, clock)

    def instruments(self) -> Iterator[Instrument]:
        yield from self.redis.instruments("limits")

    # ICounters

    @property
    def is_available(self) -> bool:
        return self._batches.is_due or self.redis.available

    def _ask(self, question: RemoteQuestion) -> None:
        self._batches.ask(question)

    def note(self, ticket: RemoteTicket) -> None:
        self._use.hold(ticket)

    def _own_use(self, key: str) -> int:
        """What this process uses or holds of a limit, as far as it is counted in Redis."""
        return self._use.of(key, self._batches.slot())

    def settle(self, ticket: RemoteTicket, amounts: Sequence[int], *, measured: bool = True) -> None:
        local, number = ticket.local, ticket.number
        if local is not None:
            local.limits.settle(local, amounts, measured=measured)
        if number:
            batches = self._batches
            is_sent = batches.is_due or self.redis.available
            self._use.settle(ticket, amounts, batches.settlements() if is_sent else self._owed_settlements())

    def tell_settled(self) -> None:
        self._batches.tell_settled()

    def _owed_settlements(self) -> Settlements:
        """What waits for Redis to come back, to be added to."""
        if sum(each.count for each in self.owed) >= MAX_UNSENT_SETTLEMENTS:
            self.unsettled += 1
            return Settlements()
        if not self.owed or self.owed[-1].count >= MAX_BATCH:
            self.owed.append(Settlements())
        return self.owed[-1]

    def _unsettled(self, failure: Failure, count: int) -> None:
        self.unsettled += count
        if not failure.check(RedisUnavailable, RedisRefused):
            self._log.failure("Requests could not be settled.", failure)

    def untold(self, amounts: Mapping[str, int]) -> None:
        self.local.untold(amounts)

    def corrected(self, amounts: Mapping[str, tuple[int, float]]) -> None:
        self.local.corrected(amounts)

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
        keys = self._use.rates.keys(self._batches.slot())
        if not self.redis.available:
            return
        for _ in range(min(len(self.owed), BATCH_ENTRIES // MAX_BATCH)):
            self._batches.settle(self.owed.popleft())
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
        held = list(self._use.holders())
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
                self.look(claims).addErrback(
                    lambda failure: failure.trap(RedisUnavailable, RedisRefused, LimitsUnavailable) and None
                )
