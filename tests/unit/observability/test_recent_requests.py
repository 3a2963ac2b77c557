from __future__ import annotations

from unittest import TestCase

from llmproxy.brief_record import parts_of
from llmproxy.model import RequestRecord
from llmproxy.observability.recent_requests import RecentRequests, RequestFilter


def record(request_id: str, **more: object) -> RequestRecord:
    usual = RequestRecord(request_id, 0.0, 0.1, "POST", "/v1/chat/completions", 200, "complete", project_id="p1")
    return usual._replace(**more)  # type: ignore[arg-type]


class RecentRequestsTests(TestCase):
    def setUp(self) -> None:
        self.requests = RecentRequests(3)
        for each in (
            record("forgotten"),
            record("limited", status=429, outcome="refused", error="rate_limit_exceeded", project_id="p2"),
            record("asked", model="gpt-4o", answered="gpt-4o-2024-11-20"),
            record("broken", status=502, outcome="failed", api="openai", token_id="t"),
        ):
            self.requests.observe_all([parts_of(each)])

    def ids(self, limit: int = 10, **wanted: object) -> list[str]:
        return [each.request_id for each in self.requests.search(RequestFilter(**wanted), limit)]  # type: ignore[arg-type]

    def test_the_latest_first(self) -> None:
        self.assertEqual(self.ids(), ["broken", "asked", "limited"])
        self.assertEqual(self.ids(limit=1), ["broken"])

    def test_filters(self) -> None:
        for wanted, ids in (
            ({"status": "4xx"}, ["limited"]),
            ({"status": "502"}, ["broken"]),
            ({"model": "gpt-4o-2024-11-20"}, ["asked"]),
            ({"model": "gpt-4o"}, ["asked"]),
            ({"error": "rate_limit_exceeded"}, ["limited"]),
            ({"outcome": "failed", "api": "openai", "token_id": "t"}, ["broken"]),
            ({"projects": ("p1",)}, ["broken", "asked"]),
            ({"projects": ()}, []),
        ):
            self.assertEqual(self.ids(**wanted), ids, wanted)

    def test_finding_one(self) -> None:
        found = self.requests.find("limited")
        assert found is not None
        self.assertEqual(found.status, 429)
        self.assertIsNone(self.requests.find("forgotten"))
        self.assertIsNone(self.requests.find("limited", projects=("p1",)))
