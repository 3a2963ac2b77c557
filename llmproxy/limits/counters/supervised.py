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
from llmproxy.limits.counters.redis_verdicts import RedisTicket, RedisVerdict, combine, with_ticket
from llmproxy.limits.counters.shared import LOOK
from llmproxy.model import Claim, Verdict

Exchange = Callable[[list[Any], list[Any]], Deferred[list[Any]]]
MAX_WAITING = 100_000  # reservations whose answer is awaited


class SupervisorSilent(Exception):
    """It is gone, or did not answer in time."""


@implementer(ICounters)
class SupervisedCounters(MultiService):
    """Asks the supervisor once in a turn of the reactor for all requests that came in it, and tells it what is settled.

    While it does not answer each claim goes by its C{on_loss}; a worker without a supervisor is about to end.
    """

    name: Any = "counters"
    unsettled = 0
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

    def reserve_now(self, claims: Sequence[Claim]) -> Verdict | None:
        if any(claim.kind != "budget" for claim in claims):
            return None
        return with_ticket(self.local.reserve_now(claims), tuple(range(len(claims))))

    def reserve(self, claims: Sequence[Claim]) -> Deferred[Verdict]:
        """Whoever gives up waiting does not stop what is under way: what is then reserved is given back."""
        answer: Deferred[Verdict] = Deferred()

        def decided(verdict: Verdict) -> None:
            if not answer.called:
                answer.callback(verdict)
            elif verdict.ticket is not None:
                self.settle(verdict.ticket, [0] * len(claims))

        def failed(failure: Failure) -> None:
            if not answer.called:
                answer.errback(failure)

        Deferred.fromCoroutine(self._reserve(claims)).addCallbacks(decided, failed)
        return answer

    async def _reserve(self, claims: Sequence[Claim]) -> Verdict:
        budgets = tuple([place for place, claim in enumerate(claims) if claim.kind == "budget"])
        shared = tuple([place for place, claim in enumerate(claims) if claim.kind != "budget"])
        held = await self.local.reserve([claims[place] for place in budgets]) if budgets else Verdict()
        if not shared:
            return with_ticket(held, budgets) or held
        wanted = tuple([claims[place] for place in shared])
        # Where a budget refuses it is only asked whether a limit before it does too, and how the others stand.
        number = LOOK
        if held.refused is None:
            self._number = number = self._number + 1
        try:
            answer = await self._ask(number, wanted)
        except SupervisorSilent:
            self._let_go(held, len(budgets))
            if number != LOOK:  # it may yet be made
                self._settle(number, [0] * len(wanted))
            return await self._fallback.reserve(claims)
        if number != LOOK and answer.refused is None:
            ticket = RedisTicket(held.ticket, budgets, str(number), 0, wanted, shared)
        else:
            self._let_go(held, len(budgets))
            ticket = None
        return combine(claims, held, budgets, answer, shared, ticket)

    def _let_go(self, held: Verdict, budgets: int) -> None:
        if held.ticket is not None:
            self.local.settle(held.ticket, [0] * budgets)

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
                answer = await self._ask(LOOK, [claims[place] for place in shared])
            except SupervisorSilent as e:
                raise LimitsUnavailable from e
            counted.update(zip(shared, answer.used, strict=True))
        return [counted[place] for place in range(len(claims))]

    # The supervisor

    async def _ask(self, number: int, claims: Sequence[Claim]) -> RedisVerdict:
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
