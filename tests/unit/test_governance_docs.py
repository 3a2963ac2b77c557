"""Every test that the page about governance names exists, and every row of it names one."""

from __future__ import annotations

import unittest

from tests.support.claims import DOCS, NAMED, missing_tests, rows, section

PAGE = DOCS / "governance.md"
TITLES = ("Requests", "Budgets", "The bill", "The ledger", "Redis", "Credentials", "Patience")


class GovernancePageTests(unittest.TestCase):
    def test_named_tests_exist(self) -> None:
        """No test was renamed or removed without its row."""
        named = NAMED.findall(PAGE.read_text("utf-8"))
        self.assertGreater(len(named), 50)
        self.assertEqual(missing_tests(named), [])

    def test_every_row_is_shown_by_a_test(self) -> None:
        """A claim without a test is none."""
        page = PAGE.read_text("utf-8")
        for title in TITLES:
            claims = rows(section(page, title))
            self.assertGreater(len(claims), 1, title)
            self.assertEqual([row for row in claims if not NAMED.search(row.rpartition(" | ")[2])], [])
