"""Values as cells of CSV (RFC 4180). Pure."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

CSV = b"Content-Type: text/csv; charset=utf-8; header=present"
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def csv_cell(value: Any) -> str:
    """A value as text; text that a spreadsheet would take for a formula has a quote before it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.12f}".rstrip("0").rstrip(".")
    if isinstance(value, list | tuple):
        return csv_cell("; ".join(map(str, value)))
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_STARTS) else str(value)


def csv_lines(rows: Iterable[Sequence[Any]]) -> bytes:
    """A line for each of these rows."""
    text = io.StringIO()
    csv.writer(text).writerows([csv_cell(value) for value in row] for row in rows)
    return text.getvalue().encode("utf-8", "replace")
