"""What was answered in one turn is accounted for together: each once, in order, and none takes another with it."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from llmproxy.brief_record import RecordKinds
from llmproxy.metering.meter import NO_USAGE
from llmproxy.proxy.fast_path.direct_records import DirectRecords
from llmproxy.proxy.fast_path.direct_request import DirectRequest
from llmproxy.proxy.fast_path.prepared_flow import RequestFacts


class DirectRecordsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.loaded: list[Callable[[], object]] | None = None
        self.concluded: list[list[tuple[str, str, bool]]] = []
        accounting: Any = SimpleNamespace(kinds=RecordKinds(), join=self.join, conclude=self.conclude)
        self.records = DirectRecords(accounting)

    def join(self, work: Callable[[], object], always: bool) -> bool:
        if self.loaded is not None:
            self.loaded.append(work)
        return self.loaded is not None

    def conclude(self, requests: Any, records: Any) -> None:
        self.concluded.append(
            [
                (record.request_id, f"{record.figures.duration:g}", request.is_measured)
                for request, record in zip(requests, records, strict=True)
            ]
        )

    def request(self, name: str) -> DirectRequest:
        route = SimpleNamespace(api_name="main", endpoint="/x")
        session = SimpleNamespace(grant=SimpleNamespace(project_id="p", token_id="t"))
        request: Any = DirectRequest()
        request.known = SimpleNamespace(
            flow=SimpleNamespace(route=route, session=session), prepared=SimpleNamespace(path="/x", record_kinds={})
        )
        request.model, request.stream, request.cache, request.client = "m", False, "bypass", "127.0.0.1"
        request.facts = RequestFacts("", 0, "")
        request.request_id, request.whole, request.response_bytes = name, b"{}", 2
        request.started_at = 1e9
        request.arrived_at, request.authorized_at, request.sent_at, request.first_byte_at = 1.0, 1.0, 1.0, 2.0
        request.ended_at = 3.5
        return request  # type: ignore[no-any-return]

    @staticmethod
    def measure(request: DirectRequest) -> bool:
        request.usage = NO_USAGE
        return True

    def test_without_load(self) -> None:
        """Whoever adds one accounts for it, once its response has left."""
        self.assertFalse(self.records.add(self.request("a"), self.measure))
        self.assertEqual(self.concluded, [])
        self.records.account()
        self.assertEqual(self.concluded, [[("a", "2.5", True)]])

    def test_under_load(self) -> None:
        """Those of a turn go together; one that cannot be measured is charged for as such, and the others are not."""
        self.loaded = []
        for name in "abc":
            self.assertTrue(self.records.add(self.request(name), (lambda _: 1 / 0) if name == "b" else self.measure))  # type: ignore[arg-type,return-value]
        self.assertEqual(len(self.loaded), 1)
        self.loaded.pop()()
        self.assertEqual(self.concluded, [[("a", "2.5", True), ("b", "2.5", False), ("c", "2.5", True)]])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
