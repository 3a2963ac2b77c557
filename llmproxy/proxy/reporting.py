"""Reports finished requests to the ledger and to all others who want to know: those of one turn together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from twisted.internet.interfaces import IReactorTime

from llmproxy.base.background import Task
from llmproxy.ledger.records import Deferral
from llmproxy.model import RequestRecord
from llmproxy.wire.write_coalescing import WriteCoalescer

Observer = Callable[[Sequence[RequestRecord]], object]


class SettlingLedger(Protocol):
    """What is asked of a L{Ledger<llmproxy.ledger.Ledger>}."""

    def settle(self, ledger_id: str, record: RequestRecord, sent: bool, deferral: Deferral | None) -> None: ...
    def together(self) -> AbstractContextManager[object]: ...


class FinishedRequest(NamedTuple):
    """A request that is over.

    @ivar ledger_id: That of its line in the ledger; C{""} where it has none yet, C{None} where it is to have none.
    @ivar sent: Whether anything of it was sent after that line had been opened.
    @ivar deferral: The result that its response announced.
    @ivar then: Called once the ledger knows.
    """

    record: RequestRecord
    ledger_id: str | None
    sent: bool = True
    deferral: Deferral | None = None
    then: Callable[[], object] | None = None


class RequestReports:
    """Reports requests that are over. Whatever becomes of a report with one of those that get it, all others get it."""

    def __init__(
        self,
        observers: Sequence[Observer],
        clock: IReactorTime,
        ledger: SettlingLedger | None = None,
        coalescer: WriteCoalescer | None = None,
    ) -> None:
        """
        @param observers: Called with the records of requests that are over; where one raises, it is counted.
        @param coalescer: Where, under load, reports wait for the end of the reactor's turn.
        """
        self._observers = observers
        self._ledger = ledger
        self._coalescer = coalescer
        self._finished: list[FinishedRequest] = []
        self._task = Task("reports", clock)
        self.tasks = (self._task,)

    def add(self, finished: FinishedRequest) -> None:
        """Report this request, now or before the turn is over."""
        waiting = self._finished
        waiting.append(finished)
        if len(waiting) == 1 and (self._coalescer is None or not self._coalescer.wait(self._report)):
            self._report()

    def _report(self) -> None:
        finished, self._finished = self._finished, []
        whole = True
        if self._ledger is not None:
            with self._ledger.together():
                whole = self._settle(self._ledger, finished)
        for each in finished:
            if each.then is not None:
                each.then()
        records = [each.record for each in finished]
        for observe in self._observers:
            try:
                observe(records)
            except Exception:
                whole = False
                self._task.failed()
        if whole:
            self._task.worked()

    def _settle(self, ledger: SettlingLedger, finished: Sequence[FinishedRequest]) -> bool:
        whole = True
        for record, ledger_id, sent, deferral, _ in finished:
            if ledger_id is None:
                continue
            try:
                ledger.settle(ledger_id, record, sent, deferral)
            except Exception:
                whole = False
                self._task.failed()
        return whole


def one_by_one(observe: Callable[[RequestRecord], object]) -> Observer:
    """Calls C{observe} with each record: one with which it fails takes it none of the others."""

    def observe_each(records: Iterable[RequestRecord]) -> None:
        for record in records:
            observe(record)

    return going_on(observe_each)


def going_on(observe: Callable[[Iterable[RequestRecord]], object]) -> Observer:
    """Calls C{observe} with all records, and once more with those behind the one with which it fails."""

    def observe_all(records: Sequence[RequestRecord]) -> None:
        failure: Exception | None = None
        left = iter(records)
        for _ in range(len(records) + 1):  # each failure has taken one, or there would be no end
            try:
                observe(left)
                break
            except Exception as e:
                failure = e
        if failure is not None:
            raise failure

    return observe_all
