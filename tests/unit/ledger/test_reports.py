"""A report holds what is known at this moment, if the store will have it in time."""

from __future__ import annotations

import json
from typing import Any, cast

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.base.peers import Peers
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


class Linked(Peers):
    """One of two workers in this process."""

    def __init__(self) -> None:
        Peers.__init__(self)
        self.other: Linked

    def ask(self, name: str, body: Any = None) -> Deferred[list[Any]]:
        return self.other.perform(name, body).addCallback(lambda answer: [json.loads(json.dumps(answer))])


class OfTwoWorkers(SynchronousTestCase):
    """What the other one knows is in a report as well."""

    def setUp(self) -> None:
        self.clock, self.own, self.others = Clock(), Parts(), Parts()
        here, there = Linked(), Linked()
        here.other, there.other = there, here
        self.reports = Reports(cast(LedgerTable, self.own), cast(Ledger, self.own), self.clock, here)
        Reports(cast(LedgerTable, self.others), cast(Ledger, self.others), self.clock, there)

    def test_the_latest_first(self) -> None:
        """Both enter it at once, and the store is asked when both have."""
        asked = self.reports.report(UsageQuery(("project",)))
        self.assertEqual((self.own.told, self.others.told), (["flush"], ["flush"]))
        self.own.flushed.callback(None)
        self.assertEqual(self.own.told, ["flush"])
        self.others.flushed.callback(None)
        self.assertEqual(self.successResultOf(asked), Report([], 0))

    def test_the_other_one_hangs(self) -> None:
        asked = self.reports.report(UsageQuery(("project",)))
        self.own.flushed.callback(None)
        self.clock.advance(2)
        self.assertEqual(self.successResultOf(asked), Report([], 0))

    def test_the_other_one_fails(self) -> None:
        self.own.flushed, self.others.flushed = succeed(None), fail(StoreUnavailable())
        self.assertEqual(self.successResultOf(self.reports.report(UsageQuery(("project",)))), Report([], 0))

    def test_no_answer(self) -> None:
        """Nor does a supervisor that is silent keep anybody from asking."""
        never: Deferred[list[Any]] = Deferred()
        self.reports = Reports(cast(LedgerTable, self.own), cast(Ledger, self.own), self.clock, Silent(never))
        asked = self.reports.latest()
        self.own.flushed.callback(None)
        self.assertNoResult(asked)
        self.clock.advance(2)
        self.successResultOf(asked)


class Silent(Peers):
    def __init__(self, answer: Deferred[list[Any]]) -> None:
        Peers.__init__(self)
        self.answer = answer

    def ask(self, name: str, body: Any = None) -> Deferred[list[Any]]:
        return self.answer
