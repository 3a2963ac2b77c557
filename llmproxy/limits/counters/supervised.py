"""A worker's counters: rates and leases are counted in the supervisor, for all workers, and budgets in the store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from llmproxy.base.background import Task
from llmproxy.base.coroutines import deferred
from llmproxy.errors import LimitsUnavailable
from llmproxy.interfaces import IBudgetStore, ICounters
from llmproxy.limits.counters.fallback import LocalFallback
from llmproxy.limits.counters.memory import MemoryCounters
from llmproxy.limits.counters.redis_verdicts import RedisVerdict
from llmproxy.limits.counters.remote import NOBODY, RemoteCounters
from llmproxy.limits.counters.shared import LOOK
from llmproxy.model import Claim

Exchange = Callable[[list[Any], list[Any]], Deferred[list[Any]]]
MAX_WAITING = 100_000  # reservations whose answer is awaited


class SupervisorSilent(Exception):
    """It is gone, or did not answer in time."""


@implementer(ICounters)
class SupervisedCounters(RemoteCounters):
    """Asks the supervisor once in a turn of the reactor for all requests that came in it, and tells it what is settled.

    While it does not answer each claim goes by its C{on_loss}; a worker without a supervisor is about to end.
    """

    name: Any = "counters"
    unsettled = 0
    silences = (SupervisorSilent,)
    _log = Logger()

    def __init__(
        self,
        exchange: Exchange,
        clock: IReactorTime,
        budgets: IBudgetStore,
        now: Callable[[], float],
        *,
        processes: int,
    ) -> None:
        """
        @param exchange: Has the supervisor settle and decide, as L{SharedCounters.exchange
            <llmproxy.limits.counters.shared.SharedCounters.exchange>} does.
        @param processes: How many workers there are.
        """
        MultiService.__init__(self)
        self.local = MemoryCounters(budgets, clock, now)
        self.addService(self.local)  # type: ignore[no-untyped-call]
        self._exchange = exchange
        self._clock = clock
        self._fallback = LocalFallback(self.local, lambda key: 0)
        self._fallback.processes = processes
        self._number = LOOK
        self._settled: list[Any] = []
        self._wanted: list[tuple[list[Any], Deferred[list[Any]]]] = []
        self._timer: IDelayedCall | None = None

    @property
    def tasks(self) -> list[Task]:
        """What goes on in the background."""
        return list(self.local.tasks)

    # ICounters

    def _new_holder(self) -> str:
        self._number += 1
        return str(self._number)

    def _unanswered(self, holder: str, claims: Sequence[Claim]) -> None:
        if holder:  # it may yet be made
            self._settle(int(holder), [0] * len(claims))

    def settle(self, ticket: Any, amounts: Sequence[int], *, measured: bool = True) -> None:
        if ticket.local is not None:
            self.local.settle(ticket.local, [amounts[place] for place in ticket.local_places], measured=measured)
        if ticket.holder:
            self._settle(int(ticket.holder), [amounts[place] for place in ticket.places])

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
                answer = await self._ask(NOBODY, [claims[place] for place in shared])
            except SupervisorSilent as e:
                raise LimitsUnavailable from e
            counted.update(zip(shared, answer.used, strict=True))
        return [counted[place] for place in range(len(claims))]

    # The supervisor

    async def _ask(self, holder: str, claims: Sequence[Claim]) -> RedisVerdict:
        number = int(holder or LOOK)
        if len(self._wanted) >= MAX_WAITING:
            raise LimitsUnavailable
        answer: Deferred[list[Any]] = Deferred()
        self._wanted.append(([number, [list(claim[:4]) for claim in claims]], answer))
        self._soon()
        refused, wait, used, resets = await answer
        return RedisVerdict(refused, wait, 0, used, resets, [])

    def _settle(self, number: int, amounts: list[int]) -> None:
        self._settled.append([number, amounts])
        self._soon()

    def _soon(self) -> None:
        if self._timer is None:
            self._timer = self._clock.callLater(0, self._flush)

    def _flush(self) -> None:
        self._timer = None
        settled, self._settled = self._settled, []
        wanted, self._wanted = self._wanted, []
        waiting = [answer for _, answer in wanted]
        asking = self._exchange(settled, [question for question, _ in wanted])
        asking.addCallbacks(self._answered, self._silent, callbackArgs=(waiting,), errbackArgs=(waiting,))
        asking.addErrback(lambda failure: self._log.failure("Limits could not be counted.", failure))

    def _answered(self, answers: list[Any], waiting: list[Deferred[list[Any]]]) -> None:
        for each, answer in zip(waiting, answers, strict=True):
            each.callback(answer)

    def _silent(self, failure: Failure, waiting: list[Deferred[list[Any]]]) -> None:
        for each in waiting:
            each.errback(SupervisorSilent(failure.getErrorMessage()))

    @deferred
    async def stopService(self) -> None:
        stopped = MultiService.stopService(self)
        if stopped is not None:
            await stopped
        if self._timer is not None:
            self._timer.cancel()
            self._flush()
