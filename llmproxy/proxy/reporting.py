"""Reports finished requests to the ledger and to all others who want to know: those of one turn together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from twisted.internet.interfaces import IReactorTime

from llmproxy.base.background import Task
from llmproxy.brief_record import BriefRecord
from llmproxy.ledger.records import FinishedRequest
from llmproxy.model import RequestRecord
from llmproxy.wire.write_coalescing import WriteCoalescer

Observer = Callable[[Sequence[BriefRecord]], object]


class SettlingLedger(Protocol):
    """What is asked of a L{Ledger<llmproxy.ledger.Ledger>}."""

    def settle_all(self, requests: Sequence[FinishedRequest]) -> None:
        """Settle all but those with which it fails; what it failed with is raised then."""


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
        if len(waiting) == 1 and (self._coalescer is None or not self._coalescer.wait(self.flush)):
            self._report()

    def add_all(self, finished: Sequence[FinishedRequest]) -> None:
        """Likewise these."""
        waiting = self._finished
        is_first = not waiting
        waiting += finished
        if is_first and finished and (self._coalescer is None or not self._coalescer.wait(self.flush)):
            self._report()

    def flush(self) -> None:
        """Report now what waits for the end of the turn."""
        if self._finished:
            self._report()

    def _report(self) -> None:
        finished, self._finished = self._finished, []
        whole = True
        if self._ledger is not None:
            try:
                self._ledger.settle_all(finished)
            except Exception:
                whole = False
                self._task.failed()
        for each in finished:
            if each.then is None:
                continue
            try:
                each.then()
            except Exception:
                whole = False
                self._task.failed()
        records = [each.record for each in finished]
        for observe in self._observers:
            try:
                observe(records)
            except Exception:
                whole = False
                self._task.failed()
        if whole:
            self._task.worked()


def one_by_one(observe: Callable[[RequestRecord], object]) -> Observer:
    """Calls C{observe} with each record: one with which it fails takes it none of the others."""

    def observe_each(records: Iterable[BriefRecord]) -> None:
        for record in records:
            observe(record.whole())

    return going_on(observe_each)


def going_on(observe: Callable[[Iterable[BriefRecord]], object]) -> Observer:
    """Calls C{observe} with all records, and once more with those behind the one with which it fails."""

    def observe_all(records: Sequence[BriefRecord]) -> None:
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
