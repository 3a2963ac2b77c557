"""Every test that the page about reliability names exists, and every row of it names one."""

from __future__ import annotations

import unittest

from tests.support.claims import DOCS, NAMED, missing_tests, rows

PAGE = DOCS / "reliability.md"


class ReliabilityPageTests(unittest.TestCase):
    def test_named_tests_exist(self) -> None:
        """No test was renamed or removed without its row."""
        named = NAMED.findall(PAGE.read_text("utf-8"))
        self.assertGreater(len(named), 5)
        self.assertEqual(missing_tests(named), [])

    def test_every_row_is_shown_by_a_test(self) -> None:
        """A claim without a test is none."""
        for part in PAGE.read_text("utf-8").split("\n## ")[1:]:
            self.assertEqual([row for row in rows(part) if "test_" not in row.rpartition(" | ")[2]], [])
