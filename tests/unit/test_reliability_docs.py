"""Every test that the page about reliability names exists, and every row of it names one."""

from __future__ import annotations

import re
import unittest

from tests.unit.test_http_docs import NAMED, TESTS

PAGE = TESTS.parent / "docs" / "reliability.md"


class ReliabilityPageTests(unittest.TestCase):
    def test_named_tests_exist(self) -> None:
        """No test was renamed or removed without its row."""
        named = NAMED.findall(PAGE.read_text("utf-8"))
        self.assertGreater(len(named), 5)
        missing = [
            f"{path}::{name}"
            for path, name in named
            if not (TESTS / path).is_file()
            or not re.search(rf"^ *(?:async )?def {name}\(", (TESTS / path).read_text("utf-8"), re.M)
        ]
        self.assertEqual(missing, [])

    def test_every_row_is_shown_by_a_test(self) -> None:
        """A claim without a test is none."""
        for section in PAGE.read_text("utf-8").split("\n## ")[1:]:
            rows = [line for line in section.splitlines() if line.startswith("|")][2:]
            self.assertEqual([row for row in rows if "test_" not in row.rpartition(" | ")[2]], [])
