from __future__ import annotations

from unittest import TestCase

from llmproxy.model import BudgetAlert
from llmproxy.observability.alert_texts import alert_text

NANO = 1_000_000_000


def alert(limit: int, spent: int, unit: str = "usd") -> BudgetAlert:
    return BudgetAlert(
        id="a",
        at=0.0,
        kind="threshold",
        threshold=50,
        soft=False,
        owner="token",
        owner_id="t",
        name="laptop",
        project_id="p",
        budget="b",
        unit=unit,
        period="month",
        limit=limit,
        spent=spent,
        ends=0.0,
    )


class AlertTextTests(TestCase):
    def test_amounts(self) -> None:
        """Dollars and cents; a budget of less than a cent is not one of nothing."""
        for limit, unit, shown in (
            (1234 * NANO, "usd", "$1,234.00"),
            (NANO // 50, "usd", "$0.02"),
            (NANO // 250, "usd", "$0.004"),
            (1500, "tokens", "1,500 tokens"),
        ):
            said = alert_text(alert(limit, limit // 2, unit))
            self.assertEqual(
                said, f'50 % of the budget of {shown} (month) of the token "laptop" is spent (50 % reached).'
            )
