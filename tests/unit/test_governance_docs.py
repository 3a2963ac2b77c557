"""Every test that the page about governance names exists, and every row of it names one."""

from __future__ import annotations

import re
import unittest
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "governance.md"
NAMED = re.compile(r"`((?:unit|journey|integration)/[a-z0-9_/]+\.py)::(test_[a-z0-9_]+)`")
TITLES = ("Requests", "Budgets", "The bill", "The ledger", "Redis", "Credentials", "Patience")


class GovernancePageTests(unittest.TestCase):
    def test_named_tests_exist(self) -> None:
        """No test was renamed or removed without its row."""
        named = NAMED.findall(PAGE.read_text("utf-8"))
        self.assertGreater(len(named), 50)
        missing = [
            f"{path}::{name}"
            for path, name in named
            if not (TESTS / path).is_file()
            or not re.search(rf"^ *(?:async )?def {name}\(", (TESTS / path).read_text("utf-8"), re.M)
        ]
        self.assertEqual(missing, [])

    def test_every_row_is_shown_by_a_test(self) -> None:
        """A claim without a test is none."""
        page = PAGE.read_text("utf-8")
        for title in TITLES:
            section = page.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
            rows = [line for line in section.splitlines() if line.startswith("|")][2:]
            self.assertGreater(len(rows), 1, title)
            self.assertEqual([row for row in rows if not NAMED.search(row.rpartition(" | ")[2])], [])
