"""Every row of the page about HTTP is shown by a test that exists: C{tests/http_claims.yaml} says by which."""

from __future__ import annotations

import re
import unittest
from pathlib import Path

import yaml

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "http.md"
CLAIMS = TESTS / "http_claims.yaml"
NAMED = re.compile(r"`((?:unit|journey|integration)/[a-z0-9_/]+\.py)::(test_[a-z0-9_]+)`")


def rows(title: str) -> list[str]:
    """The first cells of the table under a heading, without the table's head."""
    section = PAGE.read_text("utf-8").partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    return [line.split(" | ")[0].strip("| ") for line in section.splitlines() if line.startswith("|")][2:]


class HTTPPageTests(unittest.TestCase):
    def test_named_tests_exist(self) -> None:
        """No test was renamed or removed without its row."""
        claims = yaml.safe_load(CLAIMS.read_text("utf-8"))
        named = [name.split("::") for section in claims.values() for names in section.values() for name in names]
        self.assertGreater(len(named), 100)
        missing = [
            f"{path}::{name}"
            for path, name in named
            if not (TESTS / path).is_file()
            or not re.search(rf"^ *(?:async )?def {name}\(", (TESTS / path).read_text("utf-8"), re.M)
        ]
        self.assertEqual(missing, [])

    def test_every_row_is_shown_by_a_test(self) -> None:
        """A claim without a test is none, and neither is a test's claim that the page does not make."""
        claims = yaml.safe_load(CLAIMS.read_text("utf-8"))
        for title, section in claims.items():
            self.assertGreater(len(section), 10)
            self.assertEqual(rows(title), list(section))
            self.assertTrue(all(section.values()))
