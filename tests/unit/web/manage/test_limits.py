"""Limits set, changed, lifted and shown through the management API."""

from __future__ import annotations

from dataclasses import replace

from llmproxy.auth.lockout import FailedAttempts
from llmproxy.errors import LimitsUnavailable
from llmproxy.limits.limiter import LimitStatus
from llmproxy.limits.plan import rules
from llmproxy.model import Allowance, Budget
from llmproxy.web.manage.auth import ManagementAuth
from llmproxy.web.manage.endpoint import ManagementContext, Standings
from llmproxy.web.manage.tree import Management
from llmproxy.web.root import Root
from tests.unit.web.manage.management import NOW, TOKEN, ManagementTestCase

LIMITS = {
    "requests_per_minute": 60,
    "tokens_per_minute": 100_000,
    "concurrency": 5,
    "budget_usd": ["0.50/day", "20/month"],
    "budget_tokens": ["1000000000/day"],
}
KEPT = Allowance(
    requests_per_minute=60,
    tokens_per_minute=100_000,
    concurrency=5,
    budget_usd=(Budget(500_000_000, "day"), Budget(20_000_000_000, "month")),
    budget_tokens=(Budget(1_000_000_000, "day"),),
)
MAX_LISTED_ERRORS = LIMITS | {"budget_usd": ["0.5/day", "20/month"]}


class LimitsTests(ManagementTestCase):
    def test_of_a_project(self) -> None:
        project = self.project(**LIMITS)
        self.assertEqual(self.store.projects[project].allowance, KEPT)
        shown = self.ask("GET", f"/manage/projects/{project}").json
        self.assertEqual({name: shown[name] for name in LIMITS}, MAX_LISTED_ERRORS)

    def test_of_a_token(self) -> None:
        token = self.token(project_id=self.project(), **LIMITS)
        self.assertEqual(self.store.tokens[token].allowance, KEPT)
        shown = self.ask("GET", f"/manage/tokens/{token}").json
        self.assertEqual({name: shown[name] for name in LIMITS}, MAX_LISTED_ERRORS)

    def test_what_is_left_out_stays(self) -> None:
        project = self.project(**LIMITS)
        for path, store in (
            (f"/manage/projects/{project}", self.store.projects),
            (f"/manage/tokens/{self.token(project_id=project, **LIMITS)}", self.store.tokens),
        ):
            key = path.rpartition("/")[2]
            self.assertEqual(self.ask("PATCH", path, {"name": "New"}).status, 200)
            self.assertEqual(store[key].allowance, KEPT)  # type: ignore[index]
            body = {"requests_per_minute": 1, "concurrency": None, "budget_usd": "7", "budget_tokens": []}
            self.assertEqual(self.ask("PATCH", path, body).status, 200)
            changed = replace(
                KEPT,
                requests_per_minute=1,
                concurrency=None,
                budget_usd=(Budget(7_000_000_000, "lifetime"),),
                budget_tokens=(),
            )
            self.assertEqual(store[key].allowance, changed)  # type: ignore[index]

    def test_what_is_wrong(self) -> None:
        """Each is named, and nothing is made."""
        for body, word in (
            ({"requests_per_minute": 0}, "requests_per_minute"),
            ({"concurrency": 1.5}, "concurrency"),
            ({"tokens_per_minute": "many"}, "tokens_per_minute"),
            ({"budget_usd": "20/year"}, "budget_usd"),
            ({"budget_usd": ["1/day", "2/day"]}, "budget_usd: there must be at most one budget for each period"),
            ({"budget_usd": 20}, "budget_usd"),
            ({"budget_tokens": "1.5/day"}, "budget_tokens"),
            ({"budget_tokens": ["1/day", "1/month", "1", "1/day"]}, "budget_tokens"),
        ):
            self.refused(self.ask("POST", "/manage/projects", {"name": "x", **body}), 422, word)
        self.assertEqual(self.store.projects, {})

    def telling(self, standings: Standings) -> None:
        """Let this tell how limits stand."""
        self.root = Root(
            manage=Management(
                ManagementContext(
                    projects=self.store,
                    tokens=self.store,
                    usage=self.usage,
                    audit=self.audit,
                    apis={"openai": ["/v1/models"]},
                    auth=ManagementAuth(TOKEN, FailedAttempts(), self.clock),
                    clock=self.clock,
                    now=self.clock.seconds,
                    standings=standings,
                    new_id=lambda: "proj-1",
                )
            )
        )

    def test_nobody_can_tell(self) -> None:
        """Redis is away: everything else is shown all the same."""

        async def standings(owner: str, name: str, allowance: Allowance) -> list[LimitStatus]:
            raise LimitsUnavailable

        self.telling(standings)
        shown = self.ask("GET", f"/manage/projects/{self.project(requests_per_minute=60)}")
        self.assertEqual((shown.status, shown.json["requests_per_minute"], shown.json["limits"]), (200, 60, None))

    def test_how_they_stand(self) -> None:
        """Only where one is shown: a list would have to ask for each."""
        asked: list[tuple[str, str]] = []

        async def standings(owner: str, name: str, allowance: Allowance) -> list[LimitStatus]:
            asked.append((owner, name))
            return [
                LimitStatus(rule, 3, NOW + 60 if rule.period == "day" else 0.0)
                for rule in rules(owner, name, allowance, {})
            ]

        self.telling(standings)
        project = self.project(requests_per_minute=60, budget_usd="0.5/day")
        shown = self.ask("GET", f"/manage/projects/{project}").json["limits"]
        self.assertEqual(
            shown,
            [
                {
                    "limit": "requests_per_minute",
                    "period": None,
                    "allowed": 60,
                    "used": 3,
                    "remaining": 57,
                    "ends_at": None,
                },
                {
                    "limit": "budget_usd",
                    "period": "day",
                    "allowed": 0.5,
                    "used": 3e-9,
                    "remaining": 0.499999997,
                    "ends_at": "2026-11-18T09:07:40.000Z",
                },
            ],
        )
        token = self.token(project_id=project)
        self.assertEqual(self.ask("GET", f"/manage/tokens/{token}").json["limits"], [])
        self.assertEqual(asked, [("project", project), ("token", token)])
        self.assertIsNone(self.ask("GET", "/manage/projects").json["data"][0]["limits"])
