"""A report holds what is known at this moment, if the store will have it in time."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.errors import StoreUnavailable
from llmproxy.ledger.reports import Reports
from llmproxy.ledger.service import Ledger
from llmproxy.ledger.sql import LedgerTable, Report, UsageQuery


class Parts:
    """A ledger that is flushed when a test says so, and books that say in which order they were asked."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.flushed: Deferred[None] = Deferred()

    def flush(self) -> Deferred[None]:
        self.told.append("flush")
        return self.flushed

    def report(self, question: UsageQuery) -> Deferred[Report]:
        self.told.append("report")
        return succeed(Report([], 0))


class ReportsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock, self.parts = Clock(), Parts()

    def asked(self, ledger: Any) -> Deferred[Report]:
        reports = Reports(cast(LedgerTable, self.parts), ledger, self.clock)
        return reports.report(UsageQuery(("project",)))

    def test_the_latest_first(self) -> None:
        """What is known is entered before the store is asked."""
        asked = self.asked(cast(Ledger, self.parts))
        self.assertEqual(self.parts.told, ["flush"])
        self.parts.flushed.callback(None)
        self.assertEqual(self.successResultOf(asked), Report([], 0))

    def test_not_in_time(self) -> None:
        """A store that is slow to take lines still tells what it has."""
        asked = self.asked(cast(Ledger, self.parts))
        self.clock.advance(2)
        self.assertEqual(self.successResultOf(asked), Report([], 0))

    def test_not_at_all(self) -> None:
        """Nor does one that refuses them keep anybody from asking."""
        self.parts.flushed = fail(StoreUnavailable())
        self.assertEqual(self.successResultOf(self.asked(cast(Ledger, self.parts))), Report([], 0))

    def test_without_a_ledger(self) -> None:
        """What was entered before it was switched off can still be asked for."""
        self.assertEqual(self.successResultOf(self.asked(None)), Report([], 0))
        self.assertEqual(self.parts.told, ["report"])
