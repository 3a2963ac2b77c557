from __future__ import annotations

from typing import Any
from unittest import TestCase

from llmproxy.web.admin.formats import parsed
from llmproxy.web.admin.pages.alerts import in_force, latest_of_budgets

NOW = parsed("2026-11-29T12:00:00Z").timestamp()


def alert(**values: Any) -> dict[str, Any]:
    usual = {
        "id": "1",
        "type": "budget.threshold",
        "threshold": 80,
        "soft": False,
        "owner": "project",
        "owner_id": "p1",
        "budget": "budget_usd",
        "period": "month",
        "allowed": 20,
        "percent": 81.0,
        "ends_at": "2026-12-01T00:00:00Z",
    }
    return {**usual, **values}


class LatestOfBudgetsTests(TestCase):
    def test_one_for_each_budget(self) -> None:
        """The latest, which is grave where one before it was; the gravest first; none of a period that is over."""
        found = latest_of_budgets(
            [
                alert(id="soft", threshold=100, percent=150.0, soft=True, budget="soft_budget_usd"),
                alert(id="second", threshold=95, percent=96.0),
                alert(id="refused", type="budget.refusal", threshold=None, owner_id="p2", percent=99.0),
                alert(id="first"),
                alert(id="over", owner_id="p3", ends_at="2026-11-29T00:00:00Z"),
                alert(id="lifetime", owner_id="p4", period="lifetime", ends_at=None),
                alert(
                    id="early", type="budget.refusal", threshold=None, owner_id="p4", period="lifetime", ends_at=None
                ),
            ],
            NOW,
        )
        self.assertEqual(
            [(each["id"], each["grave"]) for each in found],
            [("refused", True), ("lifetime", True), ("soft", False), ("second", False)],
        )


class InForceTests(TestCase):
    def test_a_budget_that_was_changed(self) -> None:
        """What was alerted of another amount says nothing of the one that there is; that of others stays."""
        limits = [{"limit": "budget_usd", "period": "month", "allowed": 50}]
        other = alert(owner_id="t1", owner="token")
        self.assertEqual(in_force([alert(), other], "p1", limits), [other])
        self.assertEqual(in_force([alert(allowed=50)], "p1", limits), [alert(allowed=50)])
        self.assertEqual(in_force([alert()], "p1", None), [alert()], "how they stand is not known")
