"""Finished requests are reported together, and whoever fails takes nobody else's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.brief_record import BriefRecord, parts_of
from llmproxy.ledger.records import FinishedRequest
from llmproxy.model import RequestRecord
from llmproxy.proxy.reporting import RequestReports, going_on, one_by_one
from llmproxy.wire.write_coalescing import WriteCoalescer


def finished(path: str, ledger_id: str | None = "line") -> FinishedRequest:
    return FinishedRequest(parts_of(RequestRecord(path, 0.0, 0.0, "POST", path, 200, "complete")), ledger_id)


class FailingLedger:
    """Settles what is not bad."""

    def __init__(self) -> None:
        self.settled: list[tuple[str, str]] = []

    def settle_all(self, requests: Sequence[FinishedRequest]) -> None:
        for record, ledger_id, *_ in requests:
            if record.request_id != "/bad" and ledger_id is not None:
                self.settled.append((record.request_id, ledger_id))
        if any(each.record.request_id == "/bad" for each in requests):
            raise ZeroDivisionError


class RequestReportsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock, self.ledger = Clock(), FailingLedger()
        self.batches: list[list[str]] = []
        self.singly: list[str] = []

    def reports(self, coalescer: WriteCoalescer | None = None) -> RequestReports:
        def fail(records: Sequence[BriefRecord]) -> None:
            raise ZeroDivisionError

        def read(record: RequestRecord) -> None:
            if record.path == "/bad":
                raise ZeroDivisionError
            self.singly.append(record.path)

        observers = (fail, one_by_one(read), lambda records: self.batches.append([each.request_id for each in records]))
        return RequestReports(observers, self.clock, self.ledger, coalescer)

    def test_at_once(self) -> None:
        reports = self.reports()
        for path in ("/a", "/bad", "/c"):
            reports.add(finished(path))
        self.assertEqual(self.batches, [["/a"], ["/bad"], ["/c"]])
        self.flushLoggedErrors(ZeroDivisionError)

    def test_of_one_turn(self) -> None:
        self.clock.advance(1)
        reports = self.reports(WriteCoalescer(self.clock))
        reports.add(finished("/first"))  # follows none, and waits for nothing
        for path in ("/a", "/bad", "/c"):
            reports.add(finished(path))
        reports.add(finished("/no line", None))
        self.assertEqual(self.batches, [["/first"]])
        self.clock.advance(0)
        self.assertEqual(self.batches, [["/first"], ["/a", "/bad", "/c", "/no line"]])
        self.assertEqual(self.singly, ["/first", "/a", "/c", "/no line"])
        self.assertEqual(self.ledger.settled, [("/first", "line"), ("/a", "line"), ("/c", "line")])
        (task,) = reports.tasks
        self.assertEqual((task.state, task.failures), ("failing", 4))
        self.flushLoggedErrors(ZeroDivisionError)

    def test_before_the_turn_is_over(self) -> None:
        """Where nobody could be told afterwards, they are reported at once, and once."""
        self.clock.advance(1)
        reports = self.reports(WriteCoalescer(self.clock))
        reports.add(finished("/first"))
        reports.add_all([finished("/a"), finished("/c")])
        reports.flush()
        self.assertEqual(self.batches, [["/first"], ["/a", "/c"]])
        self.clock.advance(0)
        reports.flush()
        self.assertEqual(self.batches, [["/first"], ["/a", "/c"]])
        self.flushLoggedErrors(ZeroDivisionError)

    def test_going_on(self) -> None:
        """An observer of many goes on behind the one with which it fails; one that takes none is not asked for ever."""
        taken: list[str] = []

        def take(records: Iterable[BriefRecord]) -> None:
            for record in records:
                taken.append(record.request_id)
                if record.request_id == "/bad":
                    raise ZeroDivisionError

        def fail(records: Iterable[BriefRecord]) -> None:
            taken.append("asked")
            raise ZeroDivisionError

        records = [finished(path).record for path in ("/a", "/bad", "/b", "/bad")]
        self.assertRaises(ZeroDivisionError, going_on(take), records)
        self.assertEqual(taken, ["/a", "/bad", "/b", "/bad"])
        going_on(take)(records[:1])
        taken.clear()
        self.assertRaises(ZeroDivisionError, going_on(fail), records)
        self.assertEqual(taken, ["asked"] * 5)

    def test_what_is_to_be_done_afterwards(self) -> None:
        """Once the ledger knows, also where it has failed."""
        reports, done = self.reports(), []
        reports.add(finished("/bad")._replace(then=lambda: done.append("bad")))
        reports.add(finished("/a")._replace(then=lambda: done.append(self.ledger.settled[-1][0])))
        self.assertEqual(done, ["bad", "/a"])
        self.flushLoggedErrors(ZeroDivisionError)

    def test_what_is_to_be_done_afterwards_fails(self) -> None:
        """It takes neither what is to be done for another, nor anybody's report."""

        def fail() -> None:
            raise ZeroDivisionError

        self.clock.advance(1)
        reports, done = self.reports(WriteCoalescer(self.clock)), []
        reports.add(finished("/first"))
        reports.add(finished("/a")._replace(then=fail))
        reports.add(finished("/b")._replace(then=lambda: done.append("b")))
        self.clock.advance(0)
        self.assertEqual((done, self.batches), (["b"], [["/first"], ["/a", "/b"]]))
        self.flushLoggedErrors(ZeroDivisionError)
