"""Holds a ledger against an invoice, call by call, and says what any difference is made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.groundtruth.calls import Ask

CENT = 1e7
"""Nano-dollars."""
SAME = 1.0
"""Nano-dollars that two amounts may differ by: the ledger adds up floating-point dollars."""


@dataclass
class Part:
    """Some calls of a kind, and how much less than the invoice the ledger says that they cost."""

    calls: int = 0
    amount: float = 0.0


@dataclass
class Row:
    """One kind of calls. Amounts are nano-dollars.

    @ivar right: Those to the nano-dollar; C{unknown}: the ledger says that it does not know what they cost;
        C{estimated}: it says that it estimates; C{wrong}: it says another amount, or other tokens, and
        that these are exact.
    """

    calls: int = 0
    invoice: float = 0.0
    ledger: float = 0.0
    parts: dict[str, Part] = field(default_factory=lambda: {name: Part() for name in PARTS})
    examples: list[str] = field(default_factory=list)

    def has(self, name: str) -> bool:
        return self.parts[name].calls > 0


PARTS = ("right", "unknown", "estimated", "wrong")


def judged(
    asks: Sequence[Ask], invoice: Mapping[int, Sequence[Any]], ledger: Mapping[int, Sequence[Any]]
) -> dict[str, Row]:
    """The rows by kind, in order.

    @param invoice: The invoice's lines by call; C{ledger}: the ledger's, those of later looks at the result included.
    """
    rows: dict[str, Row] = {}
    for number, ask in enumerate(asks):
        _add(rows.setdefault(ask.kind, Row()), ask, invoice.get(number, ()), ledger.get(number, ()))
    return dict(sorted(rows.items()))


def _add(row: Row, ask: Ask, billed: Sequence[Any], entered: Sequence[Any]) -> None:
    paid = sum(line["nano_usd"] or 0 for line in billed)
    said = sum(line["cost_usd"] or 0 for line in entered) * 1e9
    row.calls += 1
    row.invoice += paid
    row.ledger += said
    name = _part(paid, said, entered)
    if name == "right" and not _same_tokens(billed, entered):
        name = "wrong"
    row.parts[name].calls += 1
    row.parts[name].amount += paid - said
    if name == "wrong" and len(row.examples) < 3:
        units = ", ".join(f"{name} {count}" for line in billed for name, count in line["units"].items())
        told = [{name: line[name] for name in _SHOWN if line[name]} for line in entered]
        row.examples.append(f"{ask.path} {ask.headers or ''} [{units}] costs {paid / 1e9:.9f}: {told}")


def _part(paid: float, said: float, entered: Sequence[Any]) -> str:
    if entered and abs(paid - said) <= SAME:
        return "right"
    # Of a call and the later looks at its result, any may hold the cost.
    if any(line["cost_usd"] is None for line in entered) and not said:
        return "unknown"
    return "estimated" if any(line["basis"] == "estimated" for line in entered) else "wrong"


_READ = ("input", "cached", "written", "written_1h", "audio", "cached_audio", "image", "tool", "compaction_input")
_MADE = ("output", "reasoning", "audio_output", "image_output", "compaction_output")
_TOKENS = {
    "input_tokens": _READ,
    "cached_tokens": ("cached", "cached_audio"),
    "cache_write_tokens": ("written", "written_1h"),
    "output_tokens": _MADE,
}


def _same_tokens(billed: Sequence[Any], entered: Sequence[Any]) -> bool:
    """Whether the ledger has the tokens that were paid for, where it says that it counted them."""
    if not all(line["basis"] == "exact" for line in entered[:1]):
        return True
    return all(
        sum(line[name] for line in entered) == sum(line["units"].get(unit, 0) for line in billed for unit in units)
        for name, units in _TOKENS.items()
    )


_SHOWN = ("input_tokens", "cached_tokens", "cache_write_tokens", "output_tokens", "cost_usd", "basis", "answered")


def table(rows: Mapping[str, Row]) -> str:
    """For people, in cents: the difference is that of the unknown, the estimated and the wrong, and of nothing else."""
    head = ("kind", "calls", "invoice", "ledger", "difference", *(f"{n} calls, ¢" for n in PARTS[1:]))
    lines = [head, *(_cells(kind, row) for kind, row in rows.items()), _cells("all", _all(rows.values()))]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join("  ".join(map(_aligned, range(len(head)), line, widths)) for line in lines)


def _cells(kind: str, row: Row) -> tuple[str, ...]:
    amounts = (row.invoice, row.ledger, row.invoice - row.ledger)
    parts = [row.parts[name] for name in PARTS[1:]]
    told = [f"{part.calls}  {part.amount / CENT:9.4f}" if part.calls else "" for part in parts]
    return (kind, str(row.calls), *(f"{amount / CENT:.4f}" for amount in amounts), *told)


def _aligned(column: int, cell: str, width: int) -> str:
    return cell.rjust(width) if column else cell.ljust(width)


def _all(rows: Iterable[Row]) -> Row:
    whole = Row()
    for row in rows:
        whole.calls += row.calls
        whole.invoice += row.invoice
        whole.ledger += row.ledger
        for name, part in row.parts.items():
            whole.parts[name].calls += part.calls
            whole.parts[name].amount += part.amount
    return whole
