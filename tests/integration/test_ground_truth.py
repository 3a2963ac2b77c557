"""The ledger against the invoice: every dialect, every thing that is billed, through the started daemon.

The simulator bills by the providers' price pages and shares neither code nor price list with the proxy. What the ledger
calls exact is that amount to the nano-dollar; what it cannot know it calls unknown or estimated, where this says so.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.groundtruth.calls import Ask, mixed
from tests.groundtruth.ground import Ground, by_call
from tests.groundtruth.judging import Row, judged, table

CALLS = int(os.environ.get("LLMPROXY_TRUTH_CALLS", "500"))

UNKNOWN = {
    "gemini tiers",  # the list has no price for the tiers of some models
    "gemini tiers, streamed",
    "openai speech by tokens",  # sound tells no usage, only its stream of events does
}
"""Kinds whose cost the ledger may call unknown: null, and counted as C{unpriced}."""
ESTIMATED = {"gemini embedding"}  # embedContent tells no usage


ALLOW = "limits: {unknown_price: allow}\n"


class Books:
    """What was made, and what both sides say of it."""

    def __init__(self, ground: Ground, asks: list[Ask]) -> None:
        self.invoice = ground.invoice()
        self.lines = ground.ledger()
        self.report = ground.manage("GET", "/manage/usage?group_by=project")["data"]
        known = sum(line["cost_usd"] or 0 for line in self.lines)
        end = time.monotonic() + 20
        while (used := ground.used()) != pytest.approx(known, abs=1e-6) and time.monotonic() < end:
            time.sleep(0.2)
        self.used = used
        self.rows = judged(asks, by_call(self.invoice["lines"]), by_call(self.lines))

    def kinds(self, part: str) -> set[str]:
        return {kind for kind, row in self.rows.items() if row.has(part)}


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Books]:
    asks = mixed(CALLS)
    with Ground(Path(tmp_path_factory.mktemp("truth")), further=ALLOW) as ground:
        ground.limit("100000/day")
        ground.make(asks)
        yield Books(ground, asks)


def test_what_is_called_exact_is_what_the_provider_bills(books: Books) -> None:
    """To the nano-dollar, call by call."""
    examples = [f"{kind}: {each}" for kind, row in books.rows.items() for each in row.examples]
    assert not examples, "\n".join([table(books.rows), *examples])


def test_what_is_not_known_is_said_to_be(books: Books) -> None:
    assert books.kinds("unknown") <= UNKNOWN, table(books.rows)
    assert books.kinds("estimated") <= ESTIMATED, table(books.rows)


def test_the_report_is_the_sum_of_the_lines(books: Books) -> None:
    """What an operator is shown hides nothing: sums are those of the lines."""
    (sums,) = books.report
    assert sums["requests"] == len(books.lines)
    assert sums["unpriced"] == sum(row.parts["unknown"].calls for row in books.rows.values())
    assert sums["cost_usd"] == pytest.approx(sum(line["cost_usd"] or 0 for line in books.lines), abs=1e-6)


def test_the_budget_has_used_what_the_ledger_knows(books: Books) -> None:
    """In all dialects, searches, pictures, background responses and batches included."""
    assert books.used == pytest.approx(sum(line["cost_usd"] or 0 for line in books.lines), abs=1e-6)


def test_every_call_is_on_the_invoice_once(books: Books) -> None:
    assert books.invoice["calls"] == CALLS
    assert books.invoice["unlisted"] == 0


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ({"cost_usd": 0.001, "basis": "exact"}, "right"),
        ({"cost_usd": 0.0010001, "basis": "exact"}, "wrong"),
        ({"cost_usd": 0.0, "basis": "exact"}, "wrong"),
        ({"cost_usd": 0.001, "basis": "exact", "input_tokens": 2}, "wrong"),
        ({"cost_usd": None, "basis": "exact"}, "unknown"),
        ({"cost_usd": 0.002, "basis": "estimated"}, "estimated"),
        (None, "wrong"),
    ],
)
def test_the_judge(line: dict[str, Any] | None, part: str) -> None:
    """A cost that is a hair too high, 0, or on no line at all is wrong, and so are tokens that nobody paid for."""
    shown: Any = dict.fromkeys(("cached_tokens", "cache_write_tokens", "output_tokens"), 0) | {"input_tokens": 1}
    shown |= {"answered": ""}
    bill = {"nano_usd": 1e6, "units": {"input": 1}}
    rows: dict[str, Row] = judged([Ask("kind", "/", {}, {})], {0: [bill]}, {0: [] if line is None else [shown | line]})
    assert [name for name in rows["kind"].parts if rows["kind"].has(name)] == [part]
