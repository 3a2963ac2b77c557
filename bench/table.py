"""The figures of all rounds as medians, and those as one Markdown table."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence

from scenarios import MEMORY, MEMORY_ROWS, MEMORY_TITLE, SCENARIOS, Figures, Row

Medians = dict[str, dict[str, Figures]]  # by scenario, by system

DIRECT = "direct"  # the provider alone
SUMS = ("bad",)
ADDED = ("p50_us", "p99_us")
STARVED = 0.25  # of the time; a system alone on its core waits for it for some hundredths of that


def medians(samples: Mapping[tuple[str, str], Sequence[Figures]], scenarios: Iterable[str]) -> Medians:
    """Of every figure its median over the rounds (of C{bad} the sum), and what each system adds to the provider."""
    found: Medians = {scenario: {} for scenario in scenarios}
    for (scenario, system), rounds in samples.items():
        found[scenario][system] = {
            key: (sum if key in SUMS else statistics.median)([figures[key] for figures in rounds])
            for key in rounds[0]
            if all(key in figures for figures in rounds)
        }
    for systems in found.values():
        if direct := systems.get(DIRECT):
            for figures in systems.values():
                figures |= {f"added_{key}": figures[key] - direct[key] for key in ADDED if key in figures}
    return found


def flaws(samples: Mapping[tuple[str, str], Sequence[Figures]]) -> list[str]:
    """What makes figures worthless: answers that were no success, and no answers."""
    said = []
    for (scenario, system), rounds in samples.items():
        if bad := sum(figures.get("bad", 0) for figures in rounds):
            said.append(f"{system} gave {bad:,.0f} bad answers in {scenario}: its figures there do not count.")
        if silent := [
            n for n, figures in enumerate(rounds, 1) if not figures.get("requests", 1) + figures.get("events", 0)
        ]:
            said.append(f"{system} gave no answer at all in {scenario}, round {', '.join(map(str, silent))}.")
    return said


def doubts(samples: Mapping[tuple[str, str], Sequence[Figures]]) -> list[str]:
    """Where something else ran on a system's core, so that its figures say little."""
    starved = {key: max(figures.get("no_core", 0) for figures in rounds) for key, rounds in samples.items()}
    return [
        f"{system} had no core for {share:.0%} of a round of {scenario}: its figures there say little."
        for (scenario, system), share in starved.items()
        if share > STARVED
    ]


def markdown(found: Medians, systems: Sequence[str]) -> str:
    """A row for each figure, a column for each system, and the first system's ratio to each of the others."""
    peers = systems[1:]
    head = ["scenario", "figure", *systems, *(f"× {peer}" for peer in peers)]
    lines = [head, ["---", "---", *["---:"] * (len(head) - 2)]]
    for scenario, measured in found.items():
        title, rows = _named(scenario)
        for n, row in enumerate(rows):
            values = {name: measured.get(name, {}).get(row.key, math.nan) for name in systems}
            ratios = [_ratio(values[systems[0]], values[peer]) for peer in peers]
            first = f"**{scenario}** {title}" if n == 0 else ""
            lines.append([first, row.name, *(_number(values[name], row.decimals) for name in systems), *ratios])
    return _aligned(lines)


def _named(scenario: str) -> tuple[str, Iterable[Row]]:
    if scenario == MEMORY:
        return MEMORY_TITLE, MEMORY_ROWS
    return SCENARIOS[scenario].title, SCENARIOS[scenario].rows


def _number(value: float, decimals: int) -> str:
    return "–" if math.isnan(value) else f"{value:,.{decimals}f}"


def _ratio(ours: float, theirs: float) -> str:
    return f"{ours / theirs:.2f}" if ours > 0 and theirs > 0 else "–"


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in lines)
