"""Lines come back from their rows as they were, and add up as if each had been added by itself."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.base.timestamps import utc_day
from llmproxy.ledger.line_rows import LineRows, number_of, stored_kind
from llmproxy.ledger.usage_queries import SUM_COLUMNS
from llmproxy.model import LedgerLine

TEXT = st.text(max_size=8) | st.sampled_from(["", "p", "\0", "\ud800", "é" * 300])
COUNT = st.integers(0, 300) | st.just(2**70)
LINES = st.builds(
    LedgerLine,
    id=st.sampled_from(["run-000000000a", "run-0000000000-result", "run-1", "", "-000000000a", "run-000000000A"])
    | TEXT,
    at=st.floats(0, 2e9),
    duration=st.floats(0, 1e6),
    request_id=TEXT,
    project_id=st.sampled_from(["p", "q"]),
    token_id=st.sampled_from(["t", ""]),
    api=TEXT,
    endpoint=st.just("/v1/*"),
    model=TEXT,
    answered=st.sampled_from(["", "m"]),
    outcome=st.sampled_from(["exact", "failed"]),
    basis=st.sampled_from(["none", "exact", "estimated"]),
    error=TEXT,
    status=st.integers(100, 599),
    upstream_status=st.none() | st.integers(100, 599),
    stream=st.booleans(),
    input_tokens=COUNT,
    cached_tokens=COUNT,
    cache_write_tokens=COUNT,
    output_tokens=COUNT,
    reasoning_tokens=COUNT,
    cost_usd=st.none() | st.floats(0, 1e3),
    bytes_in=COUNT,
    bytes_out=COUNT,
    attribution=TEXT,
    attempts=st.integers(0, 3),
    attempted=TEXT,
)
WIDTHS = {"id": 64, "request_id": 128, "project_id": 255, "api": 255, "model": 128, "error": 64, "attribution": 4000}


def storable(line: LedgerLine) -> dict[str, Any]:
    """A line as the columns take it."""
    fields = line._asdict()
    for name, value in fields.items():
        if isinstance(value, str):
            fields[name] = value.replace("\0", "").replace("\ud800", "?")[: WIDTHS.get(name, 512)]
        elif isinstance(value, int):
            fields[name] = min(value, 2**63 - 1)
    return fields


class LineRowsTests(SynchronousTestCase):
    @given(st.lists(LINES, max_size=6), st.lists(LINES, max_size=6))
    def test_lines(self, first: list[LedgerLine], more: list[LedgerLine]) -> None:
        """Whatever is in them, they come back in the order in which they were added, and as sums."""
        begun = LineRows().with_lines(first)
        before = list(begun.lines()), begun.sums()
        rows = begun.with_lines(more)
        wanted = [storable(line) for line in first + more]
        self.assertEqual([line._asdict() for line in rows.lines()], wanted)
        self.assertEqual((list(begun.lines()), begun.sums()), before)
        sums: dict[tuple[str, ...], list[Any]] = defaultdict(lambda: [0] * len(SUM_COLUMNS))
        attributed: dict[tuple[str, ...], list[Any]] = defaultdict(lambda: [0] * len(SUM_COLUMNS))
        stored = map(LedgerLine, *zip(*(each.values() for each in wanted), strict=True)) if wanted else ()
        for line in stored:
            key = (utc_day(line.at), line.project_id, line.token_id, line.api, line.answered or line.model)
            failed, estimated = line.outcome == "failed", line.basis == "estimated"
            unpriced = line.cost_usd is None and line.basis != "none"
            told: tuple[float, ...] = (
                line.input_tokens,
                line.cached_tokens,
                line.cache_write_tokens,
                line.output_tokens,
            )
            told += (line.reasoning_tokens, line.cost_usd or 0.0)
            sums[key] = [a + b for a, b in zip(sums[key], (1, failed, estimated, unpriced, *told), strict=True)]
            if line.attribution:
                key = (utc_day(line.at), line.project_id, line.api, line.answered or line.model, line.attribution)
                values = zip(attributed[key], (1, failed, estimated, unpriced, *told), strict=True)
                attributed[key] = [a + b for a, b in values]
        self.assertEqual(rows.attributed, attributed)
        self.assertEqual(rows.sums(), [(*key, *values) for key, values in sorted(sums.items())])

    @given(st.lists(LINES, max_size=6))
    def test_uses(self, lines: list[LedgerLine]) -> None:
        """Budgets are charged with each line in whole nano-dollars, by its day; one without a price costs nothing."""
        sums: dict[tuple[Any, ...], list[int]] = defaultdict(lambda: [0, 0])
        for line in lines:
            stored = storable(line)
            key = (line.at // 86400 * 86400, line.project_id, line.token_id, stored["api"])
            sums[key][0] += stored["input_tokens"] + stored["output_tokens"]
            sums[key][1] += round((line.cost_usd or 0.0) * 10**9)
        added: dict[tuple[Any, ...], list[int]] = defaultdict(lambda: [0, 0])
        for use in LineRows().with_lines(lines).uses():
            added[use[:4]] = [a + b for a, b in zip(added[use[:4]], use[4:], strict=True)]
        self.assertEqual(added, sums)

    def test_kinds_are_shared(self) -> None:
        """What lines have in common is there once, whoever enters them."""
        rows = LineRows().with_lines(
            [LedgerLine(f"run-{n:010x}", float(n), request_id=str(n), model="m", input_tokens=n) for n in range(9)]
        )
        self.assertEqual((len(rows), len(rows.kinds), len(rows.runs)), (9, 1, 1))
        kind, run = next(iter(rows.kinds)), next(iter(rows.runs))
        self.assertEqual({row[:3] for row in rows.rows}, {(run, n, kind) for n in range(9)})

    def test_numbers_stay(self) -> None:
        """Another process, and another version, has the same ones: they are in databases."""
        self.assertEqual(number_of("run"), 9053790667580588490)
        common = ("p", "t", "openai", "/v1/*", "m", "", "exact", "exact", "", 200, 200, False)
        self.assertEqual(stored_kind(common).id, 2028759854813031441)
