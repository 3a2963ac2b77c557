"""Every test that the page about HTTP names exists, and every row of it names one."""

from __future__ import annotations

import re
import unittest
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "http.md"
NAMED = re.compile(r"`((?:unit|journey|integration)/[a-z0-9_/]+\.py)::(test_[a-z0-9_]+)`")


def _rows(title: str) -> list[str]:
    """The rows of the table under a heading, without its head."""
    section = PAGE.read_text("utf-8").partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    return [line for line in section.splitlines() if line.startswith("|")][2:]


class HTTPPageTests(unittest.TestCase):
    def test_named_tests_exist(self) -> None:
        """No test was renamed or removed without its row."""
        named = NAMED.findall(PAGE.read_text("utf-8"))
        self.assertGreater(len(named), 100)
        missing = [
            f"{path}::{name}"
            for path, name in named
            if not (TESTS / path).is_file()
            or not re.search(rf"^ *(?:async )?def {name}\(", (TESTS / path).read_text("utf-8"), re.M)
        ]
        self.assertEqual(missing, [])

    def test_every_row_is_shown_by_a_test(self) -> None:
        """A claim without a test is none."""
        for title in ("Requests", "Provider faults", "Security"):
            rows = _rows(title)
            self.assertGreater(len(rows), 10)
            self.assertEqual([row for row in rows if not NAMED.search(row.rpartition(" | ")[2])], [])
