"""What providers export of the usage and the cost that they count, as CSV: read, and added up by day and model.

OpenAI: platform.openai.com, Usage, Export, of the costs or of the activity of completions and the like. Anthropic:
platform.claude.com, Usage or Cost, Export. Days are in UTC in all of them.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation

Row = Mapping[str, str]
ANY_MODEL = ""  # the model of a file that does not tell them apart


@dataclass(frozen=True)
class ExportFormat:
    """One kind of file.

    @ivar columns: Those by which it is recognized.
    @ivar model: The model of a row, as the provider calls it there.
    @ivar amounts: What the row adds to each measure; the measures have the names of the ledger's sums.
    """

    name: str
    provider: str
    columns: frozenset[str]
    day: Callable[[Row], str]
    model: Callable[[Row], str]
    amounts: Mapping[str, tuple[str, ...]]
    currency: str = ""


@dataclass
class ProviderExport:
    """What a file says.

    @ivar sums: By day and model, by measure.
    @ivar days: All days that it is about, also those without any usage.
    """

    format: ExportFormat
    sums: dict[tuple[str, str], dict[str, Decimal]] = field(default_factory=dict)
    days: set[str] = field(default_factory=set)

    @property
    def models(self) -> frozenset[str]:
        return frozenset(model for _, model in self.sums)


def _epoch_day(row: Row) -> str:
    """A bucket's day: the day on which it begins."""
    if row.get("start_time_iso"):
        return row["start_time_iso"][:10]
    return datetime.fromtimestamp(int(row["start_time"]), UTC).date().isoformat()


def _line_item_model(row: Row) -> str:
    """C{gpt-5-nano} of C{gpt-5-nano, input_tokens}; L{ANY_MODEL} where the file was exported without line items."""
    return row.get("line_item", "").partition(",")[0].strip()


FORMATS = (
    ExportFormat(
        "openai-costs", "openai", frozenset({"start_time", "amount_value", "amount_currency"}), _epoch_day,
        _line_item_model, {"cost_usd": ("amount_value",)}, "amount_currency",
    ),
    ExportFormat(
        "openai-usage", "openai", frozenset({"start_time", "num_model_requests", "input_tokens", "output_tokens"}),
        _epoch_day, lambda row: row.get("model", ""),
        {
            "requests": ("num_model_requests",),
            "input_tokens": ("input_tokens",),  # cached ones are among them
            "output_tokens": ("output_tokens",),
        },
    ),
    ExportFormat(
        "anthropic-costs", "anthropic", frozenset({"usage_date_utc", "cost_usd"}),
        lambda row: row["usage_date_utc"][:10],
        lambda row: row.get("model", ""), {"cost_usd": ("cost_usd",)},
    ),
    ExportFormat(
        "anthropic-usage", "anthropic",
        frozenset({"usage_date_utc", "model_version", "usage_input_tokens_no_cache", "usage_output_tokens"}),
        lambda row: row["usage_date_utc"][:10], lambda row: row["model_version"],
        {
            "input_tokens": (
                "usage_input_tokens_no_cache",
                "usage_input_tokens_cache_write",
                "usage_input_tokens_cache_write_5m",
                "usage_input_tokens_cache_write_1h",
                "usage_input_tokens_cache_read",
            ),
            "output_tokens": ("usage_output_tokens",),
        },
    ),
)  # fmt: skip


def read_export(lines: Iterable[str]) -> ProviderExport:
    """Add up a file; L{ValueError} where it is none of these, or a line of it is not as it must be."""
    try:
        return _read(lines)
    except csv.Error as e:
        raise ValueError(f"it is no CSV: {e}") from e


def _read(lines: Iterable[str]) -> ProviderExport:
    reader = csv.reader(lines)
    names = [name.strip() for name in next(reader, [])]
    kind = next((each for each in FORMATS if each.columns <= set(names)), None)
    if kind is None:
        known = "; ".join(f"{each.name}: {', '.join(sorted(each.columns))}" for each in FORMATS)
        raise ValueError(f"it is no export that is known. These are, by their columns: {known}")
    found = ProviderExport(kind)
    for cells in reader:
        if not any(cells):
            continue
        try:
            _add(found, dict(zip(names, (cell.strip() for cell in cells), strict=False)))
        except (ValueError, KeyError, InvalidOperation, OverflowError, OSError) as e:
            raise ValueError(f"line {reader.line_num} is not as in {kind.name}: {e}") from e
    if not found.days:
        raise ValueError("it has no lines")
    return found


def _add(found: ProviderExport, row: Row) -> None:
    kind = found.format
    day = date.fromisoformat(kind.day(row)).isoformat()
    found.days.add(day)
    if not any(row.get(column) for columns in kind.amounts.values() for column in columns):
        return  # a day on which nothing was used
    if kind.currency and row.get(kind.currency, "").lower() not in ("", "usd"):
        raise ValueError(f"{kind.currency} is {row[kind.currency]}, the ledger is in USD")
    sums = found.sums.setdefault((day, kind.model(row)), dict.fromkeys(kind.amounts, Decimal(0)))
    for measure, columns in kind.amounts.items():
        sums[measure] += sum(_number(row.get(column, "")) for column in columns)


def _number(text: str) -> Decimal:
    number = Decimal(text.replace(",", "") or "0")
    if not number.is_finite():
        raise ValueError(f"{text} is no amount")
    return number
