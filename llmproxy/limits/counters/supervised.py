"""A worker's counters: rates and leases are counted in the supervisor, for all workers, and budgets in the store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from llmproxy.base.background import Task
from llmproxy.base.coroutines import deferred
from llmproxy.base.end_of_turn import end_of_turn
from llmproxy.errors import LimitsUnavailable
from llmproxy.interfaces import IBudgetStore
from llmproxy.limits.counted import IRemoteCounters
from llmproxy.limits.counters.fallback import LocalFallback
from llmproxy.limits.counters.memory import MemoryCounters
from llmproxy.limits.counters.remote import RemoteCounters
from llmproxy.limits.counters.remote_limits import RemoteAnswer, RemoteQuestion, RemoteTicket

Exchange = Callable[[list[Any], list[Any]], Deferred[list[Any]]]
MAX_WAITING = 100_000  # reservations whose answer is awaited


class SupervisorSilent(Exception):
    """It is gone, or did not answer in time."""


@implementer(IRemoteCounters)
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
        super().__init__()
        self.local = MemoryCounters(budgets, clock, now)
        self.addService(self.local)  # type: ignore[no-untyped-call]
        self._exchange = exchange
        self._fallback = LocalFallback(self.local, lambda key: 0)
        self._fallback.processes = processes
        self._settled: list[Any] = []
        self._questions: list[RemoteQuestion] = []
        self._is_due = False
        self._at_end = end_of_turn(clock)

    @property
    def tasks(self) -> list[Task]:
        """What goes on in the background."""
        return list(self.local.tasks)

    # ICounters

    def _forget(self, question: RemoteQuestion) -> None:
        self._settle(question.number, [0] * len(question.limits.limits))  # it may yet be made

    def settle(self, ticket: RemoteTicket, amounts: Sequence[int], *, measured: bool = True) -> None:
        if ticket.local is not None:
            self.local.settle(ticket.local, amounts, measured=measured)
        if ticket.number and ticket.limits is not None:
            self._settle(ticket.number, [amounts[unit] for unit, _, _, _ in ticket.limits.limits])

    def untold(self, amounts: Mapping[str, int]) -> None:
        self.local.untold(amounts)

    def corrected(self, amounts: Mapping[str, tuple[int, float]]) -> None:
        self.local.corrected(amounts)

    # The supervisor

    def _ask(self, question: RemoteQuestion) -> None:
        if len(self._questions) >= MAX_WAITING:
            question.take_failure(LimitsUnavailable())
            return
        self._questions.append(question)
        self._soon()

    def _settle(self, number: int, amounts: Sequence[int]) -> None:
        self._settled.append([number, amounts])
        self._soon()

    def tell_settled(self) -> None:
        if self._settled:
            self._flush()

    def _soon(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._at_end(self._flush)

    def _flush(self) -> None:
        if not self._is_due:
            return  # it has left before the end of its turn
        self._is_due = False
        settled, self._settled = self._settled, []
        questions, self._questions = self._questions, []
        asking = self._exchange(settled, [_wanted(question) for question in questions])
        asking.addCallbacks(self._decided, self._silent, callbackArgs=(questions,), errbackArgs=(questions,))
        asking.addErrback(lambda failure: self._log.failure("Limits could not be counted.", failure))

    def _decided(self, answers: list[Any], questions: list[RemoteQuestion]) -> None:
        for question, (refused, wait, used, resets) in zip(questions, answers, strict=True):
            question.take_answer(RemoteAnswer(refused, wait, 0, used, resets))

    def _silent(self, failure: Failure, questions: list[RemoteQuestion]) -> None:
        for question in questions:
            question.take_failure(SupervisorSilent(failure.getErrorMessage()))

    @deferred
    async def stopService(self) -> None:
        stopped = MultiService.stopService(self)
        if stopped is not None:
            await stopped
        self._flush()


def _wanted(question: RemoteQuestion) -> list[Any]:
    """A question as L{SharedCounters} reads it."""
    amounts = question.amounts
    return [
        question.number,
        [[key, "rate" if rate else "lease", limit, amounts[unit]] for unit, key, limit, rate in question.limits.limits],
    ]
