"""The last requests of several processes as one list."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.base.peers import Peers
from llmproxy.brief_record import parts_of
from llmproxy.errors import Invalid
from llmproxy.model import PageRequest, RequestRecord
from llmproxy.observability.recent_requests import RecentRequests, RequestFilter
from llmproxy.observability.requests_of_workers import RequestsOfWorkers


class Linked(Peers):
    """One of several in this process; what passes goes through JSON."""

    alone = False

    def __init__(self) -> None:
        Peers.__init__(self)
        self.others: list[Linked] = []

    def ask(self, name: str, body: Any = None) -> Deferred[list[Any]]:
        question = json.dumps(body)
        found: list[Any] = []
        for other in self.others:
            other.perform(name, json.loads(question)).addCallback(lambda answer: found.append(answer))
        return succeed(json.loads(json.dumps(found)))


def record(number: int, at: float, status: int = 200) -> RequestRecord:
    return RequestRecord(f"r{number}", at, 0.0, "GET", "/v1/models", status, "complete")


class RequestsOfWorkersTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.peers = [Linked() for _ in range(3)]
        for one in self.peers:
            one.others = [other for other in self.peers if other is not one]
        self.kept = [RecentRequests() for _ in self.peers]
        self.all = [RequestsOfWorkers(kept, peers) for kept, peers in zip(self.kept, self.peers, strict=True)]

    def page(self, limit: int, cursor: str = "", who: int = 0, offset: int = 0, status: str = "") -> Any:
        wanted = RequestFilter(status=status)
        return self.successResultOf(self.all[who].page(wanted, PageRequest(limit, offset, cursor)))

    @given(st.lists(st.integers(0, 2), max_size=25), st.integers(1, 7), st.data())
    def test_every_request_is_on_one_page(self, where: list[int], limit: int, data: st.DataObject) -> None:
        """Latest first, whichever worker gives each page, and whatever comes meanwhile."""
        self.setUp()
        for number, process in enumerate(where):
            self.kept[process].observe_all([parts_of(record(number, float(number)))])
        found: list[str] = []
        cursor, later = "", 100
        for _ in range(100):
            page = self.page(limit, cursor, data.draw(st.integers(0, 2)))
            found += [each.request_id for each in page.items]
            cursor = page.next_cursor
            if not cursor:
                break
            self.kept[data.draw(st.integers(0, 2))].observe_all([parts_of(record(later, float(later)))])
            later += 1
        self.assertEqual(found, [f"r{number}" for number in reversed(range(len(where)))])

    def test_filter_and_offset(self) -> None:
        for number in range(6):
            self.kept[number % 3].observe_all([parts_of(record(number, float(number), 429 if number % 2 else 200))])
        self.assertEqual([each.request_id for each in self.page(2, offset=1, status="429").items], ["r3", "r1"])

    def test_one_of_them(self) -> None:
        """It is found wherever it was served."""
        self.kept[2].observe_all([parts_of(record(7, 1.0))])
        found = self.successResultOf(self.all[0].find("r7"))
        self.assertEqual(found, record(7, 1.0))
        self.assertIsNone(self.successResultOf(self.all[1].find("r8")))

    def test_what_is_no_cursor(self) -> None:
        for cursor in ("7", "x-1", "0123456789abcdef-", "0123456789abcdef-1.", "0123456789ABCDEF-1"):
            self.failureResultOf(self.all[0].page(RequestFilter(), PageRequest(3, 0, cursor)), Invalid)
