from __future__ import annotations

import csv
from unittest import TestCase

from llmproxy.web.csv_cells import csv_cell, csv_lines


class CsvTests(TestCase):
    def test_how_values_stand_in_cells(self) -> None:
        """Null is empty, a list one cell, a small amount has no exponent, and nothing is a formula."""
        for value, cell in (
            (None, ""),
            (True, "true"),
            (1.5e-7, "0.00000015"),
            (-2.0, "-2"),
            (7, "7"),
            (["a", "b"], "a; b"),
            ([], ""),
            ("=SUM(A1)", "'=SUM(A1)"),
            (["@x"], "'@x"),
            ("1-2", "1-2"),
        ):
            self.assertEqual(csv_cell(value), cell)

    def test_lines_are_read_as_they_were_written(self) -> None:
        rows = [['a "quoted" one', "with, comma", "two\nlines", "\u05e9\U0001f98a"], ["", "x", "y", "z"]]
        read = list(csv.reader(csv_lines(rows).decode().splitlines(keepends=True)))
        self.assertEqual(read, rows)
