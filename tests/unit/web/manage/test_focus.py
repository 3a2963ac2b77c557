"""Rows of FOCUS, one by one; a whole export through the daemon is in tests/integration."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from llmproxy.ledger.reports import SUM_NAMES
from llmproxy.web.manage.focus import FOCUS_COLUMNS, FOCUS_GROUPS, MANDATORY, FocusRows, periods, tags
from tests.support import focus

ROW: dict[str, Any] = {
    **dict.fromkeys(SUM_NAMES, 3),
    **dict.fromkeys(FOCUS_GROUPS, ""),
    "day": "2026-12-31",
    "api": "openai",
    "cost_usd": 0.1 + 0.2,
}


def written(**changes: Any) -> list[dict[str, str]]:
    rows = FocusRows({"openai": "openai", "own": "generic"})
    row = {**ROW, **changes}
    text = (rows.heading() + rows.render([[row[name] for name in (*FOCUS_GROUPS, *SUM_NAMES)]])).decode()
    assert focus.breaches(text) == []
    return focus.read(text)


class FocusTests(SynchronousTestCase):
    def test_columns(self) -> None:
        """All that are mandatory, each once."""
        self.assertEqual(set(MANDATORY), set(focus.MANDATORY))
        self.assertEqual(len(set(FOCUS_COLUMNS)), len(FOCUS_COLUMNS))

    def test_a_day(self) -> None:
        """It ends where the next begins, and so does its month."""
        self.assertEqual(periods("2026-12-31")[1], "2027-01-01T00:00:00Z")
        self.assertEqual(periods("2026-12-31")[2:], ("2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"))

    def test_a_month_into_which_days_were_folded(self) -> None:
        """Its charges are for all of it."""
        self.assertEqual(periods("2028-02")[:2], ("2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z"))
        (row,) = written(day="2028-02")
        self.assertEqual((row["ChargePeriodStart"], row["ChargePeriodEnd"]), periods("2028-02")[:2])

    def test_nobodys(self) -> None:
        """What belongs to no project has no sub account; what names no model has a SKU still."""
        (row,) = written()
        self.assertEqual([row[name] for name in ("SubAccountId", "SubAccountName", "SubAccountType")], ["", "", ""])
        self.assertEqual((row["SkuId"], row["BilledCost"]), ("no model", "0.3"))

    def test_a_project_without_a_name(self) -> None:
        """One that is not in the store any more is named by its id."""
        (row,) = written(project="p1")
        self.assertEqual(row["SubAccountName"], "p1")

    def test_providers(self) -> None:
        """An API whose provider is none that is known is its own."""
        self.assertEqual(
            [written(api=api)[0]["ProviderName"] for api in ("openai", "own", "gone")], ["OpenAI", "own", "gone"]
        )

    def test_tags(self) -> None:
        """Labels are keys without values; there is no empty object."""
        self.assertEqual(tags('["b", "a"]', '{"team": "x"}'), '{"a": true, "b": true, "team": "x"}')
        self.assertIsNone(tags("", ""))
        self.assertIsNone(tags("[]", "{}"))
        self.assertIsNone(tags("null", "null"))

    def test_the_checker(self) -> None:
        """It knows the specification's columns by itself, and finds what is missing."""
        text = FocusRows({}).heading().decode()
        self.assertEqual(focus.breaches(text), [])
        for name in focus.MANDATORY:
            self.assertIn(focus.Breach(0, name, "is missing"), focus.breaches(text.replace(f"{name},", "", 1)))
