"""What was answered in one turn is accounted for together: each once, in order, and none takes another with it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.brief_record import RecordKinds
from llmproxy.limits.limiter import LimitReservation
from llmproxy.metering.meter import NO_USAGE
from llmproxy.proxy.fast_path.direct_records import DirectRecords
from llmproxy.proxy.fast_path.direct_request import DirectRequest
from llmproxy.proxy.fast_path.prepared_flow import RequestFacts
from llmproxy.wire.write_coalescing import WriteCoalescer


class HeldLimits(LimitReservation):
    """Of no counters."""

    def __init__(self, *, is_local: bool) -> None:
        self.is_local = is_local


class DirectRecordsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1)
        self.writes, self.reports = WriteCoalescer(self.clock), WriteCoalescer(self.clock)
        self.heard: list[str] = []
        accounting: Any = SimpleNamespace(
            kinds=RecordKinds(), join=self.reports.join, conclude=self.conclude, report_all=self.report_all
        )
        self.records = DirectRecords(accounting)

    def conclude(self, requests: Any) -> None:
        self.heard += [f"{each.request_id} is measured: {each.is_measured}" for each in requests]

    def report_all(self, finished: Any) -> None:
        self.heard += [f"{each.record.request_id} took {each.record.figures.duration:g} s" for each in finished]

    def under_load(self) -> None:
        """Something has just left."""
        self.reports.wait(lambda: None)
        self.writes.wait(lambda: None)

    def request(self, name: str) -> DirectRequest:
        route = SimpleNamespace(api_name="main", endpoint="/x")
        session = SimpleNamespace(grant=SimpleNamespace(project_id="p", token_id="t"))
        request: Any = DirectRequest()
        request.known = SimpleNamespace(
            flow=SimpleNamespace(route=route, session=session),
            prepared=SimpleNamespace(path="/x", record_kinds={}),
            grow=int,
        )
        request.model, request.stream, request.cache, request.client = "m", False, "bypass", "127.0.0.1"
        request.facts = RequestFacts("", 0, "")
        request.request_id, request.received, request.response_bytes = name, b"{}", 2
        request.started_at = 1e9
        request.arrived_at, request.authorized_at, request.sent_at, request.first_byte_at = 1.0, 1.0, 1.0, 2.0
        request.ended_at, request.measure, request.ledger_id = 3.5, self.measure, f"line-{name}"
        return request  # type: ignore[no-any-return]

    @staticmethod
    def measure(request: DirectRequest) -> bool:
        request.usage = NO_USAGE
        return True

    def answer(self, request: DirectRequest) -> bool:
        """As whoever has a response."""
        waits = self.records.add(request)
        name = request.request_id
        if not self.writes.wait(lambda: self.heard.append(f"{name} leaves"), request.reservation is not None):
            self.heard.append(f"{name} leaves")
        return waits

    def test_without_load(self) -> None:
        """It leaves at once; whoever added it accounts for it then."""
        self.assertFalse(self.answer(self.request("a")))
        self.assertEqual(self.heard, ["a leaves"])
        self.records.account_all()
        self.assertEqual(self.heard[1:], ["a is measured: True", "a took 2.5 s"])

    def test_under_load(self) -> None:
        """Those of a turn go together; one that cannot be measured, or recorded, is the only one."""
        self.under_load()
        requests = [self.request(name) for name in "abcd"]
        requests[1].measure = lambda _: 1 / 0  # type: ignore[assignment,return-value]
        del requests[2].ended_at
        self.assertEqual([self.answer(each) for each in requests], [True] * 4)
        self.assertEqual(self.heard, [])
        self.clock.advance(0)
        measured = [f"{name} is measured: {name != 'b'}" for name in "abcd"]
        self.assertEqual(self.heard[:7], [*measured, *(f"{name} took 2.5 s" for name in "abd")])
        self.assertEqual(self.heard[7:], [f"{name} leaves" for name in "abcd"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError, AttributeError)), 2)

    def test_one_that_has_limits(self) -> None:
        """It is in the books before it leaves, also without load."""
        request = self.request("a")
        request.reservation = HeldLimits(is_local=True)
        self.assertTrue(self.answer(request))
        self.assertEqual(self.heard, [])
        self.clock.advance(0)
        self.assertEqual(self.heard, ["a is measured: True", "a took 2.5 s", "a leaves"])

    def test_one_whose_limits_are_counted_elsewhere(self) -> None:
        """That is told at once: its client may go on at another process."""
        request = self.request("a")
        request.reservation = HeldLimits(is_local=False)
        self.assertTrue(self.records.add(request))
        self.assertEqual(self.heard, ["a is measured: True", "a took 2.5 s"])
