"""Every row of the page about HTTP is shown by a test that exists: C{tests/http_claims.yaml} says by which."""

from __future__ import annotations

import unittest

import yaml

from tests.support.claims import DOCS, TESTS, missing_tests, rows, section

PAGE = DOCS / "http.md"
CLAIMS = TESTS / "http_claims.yaml"


def first_cells(title: str) -> list[str]:
    """The first cells of the table under a heading, without the table's head."""
    return [row.split(" | ")[0].strip("| ") for row in rows(section(PAGE.read_text("utf-8"), title))]


class HTTPPageTests(unittest.TestCase):
    def test_named_tests_exist(self) -> None:
        """No test was renamed or removed without its row."""
        claims = yaml.safe_load(CLAIMS.read_text("utf-8"))
        named = [name.split("::") for of_rows in claims.values() for names in of_rows.values() for name in names]
        self.assertGreater(len(named), 100)
        self.assertEqual(missing_tests((path, name) for path, name in named), [])

    def test_every_row_is_shown_by_a_test(self) -> None:
        """A claim without a test is none, and neither is a test's claim that the page does not make."""
        claims = yaml.safe_load(CLAIMS.read_text("utf-8"))
        for title, of_rows in claims.items():
            self.assertGreater(len(of_rows), 10)
            self.assertEqual(first_cells(title), list(of_rows))
            self.assertTrue(all(of_rows.values()))
