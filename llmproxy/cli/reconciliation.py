"""What a provider counted beside what the ledger has: the differences, by day and model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from llmproxy.cli.provider_exports import ANY_MODEL, ProviderExport

_DATE = re.compile(r"(-20\d\d-\d\d-\d\d|[-@]20\d{6}|-latest)$")  # what some names of models end in
Sums = Mapping[tuple[str, str], Mapping[str, Decimal]]


@dataclass(frozen=True)
class Tolerance:
    """What is no difference: either of these.

    @ivar percent: Of what the provider says.
    @ivar usd: Of a day's and a model's cost: what rounding and prices to many digits make.
    """

    percent: Decimal = Decimal(1)
    usd: Decimal = Decimal("0.01")

    def allows(self, measure: str, provider: Decimal, ledger: Decimal) -> bool:
        difference = abs(ledger - provider)
        least = self.usd if measure == "cost_usd" else Decimal(0)
        return difference <= max(least, abs(provider) * self.percent / 100)


@dataclass(frozen=True)
class Comparison:
    """One measure of one model on one day."""

    day: str
    model: str
    measure: str
    provider: Decimal
    ledger: Decimal
    differs: bool
    unpriced: int = 0

    @property
    def difference(self) -> Decimal:
        return self.ledger - self.provider


def compare(export: ProviderExport, ledger_rows: Iterable[Mapping[str, Any]], allowed: Tolerance) -> list[Comparison]:
    """Every measure that the file has, of every day and model that either side has, in order.

    @param ledger_rows: By day, API and model, as the management API has them; only of days that the file is about.
    """
    models = export.models
    undated = {plain_name(model): model for model in models if not _DATE.search(model)}
    measures = tuple(export.format.amounts)
    ledger: dict[tuple[str, str], dict[str, Decimal]] = {}
    unpriced: dict[tuple[str, str], int] = {}
    for row in ledger_rows:
        key = row["day"], ANY_MODEL if models == {ANY_MODEL} else _as_exported(row["model"], models, undated)
        sums = ledger.setdefault(key, dict.fromkeys(measures, Decimal(0)))
        for measure in measures:
            sums[measure] += Decimal(str(row[measure]))
        unpriced[key] = unpriced.get(key, 0) + int(row["unpriced"])
    found: list[Comparison] = []
    for key in sorted({*export.sums, *ledger}):
        for measure in measures:
            theirs, ours = (sums.get(key, {}).get(measure, Decimal(0)) for sums in (export.sums, ledger))
            if theirs or ours:
                differs = not allowed.allows(measure, theirs, ours)
                found.append(Comparison(*key, measure, theirs, ours, differs, unpriced.get(key, 0)))
    return found


def _as_exported(model: str, models: frozenset[str], undated: Mapping[str, str]) -> str:
    """The file's name for a model of the ledger: the same, or one without the date, or one for people to read."""
    return model if model in models else undated.get(plain_name(model), model)


def plain_name(model: str) -> str:
    """C{claude-haiku-3-5} of C{claude-3-5-haiku-20241022} and of C{Claude Haiku 3.5}."""
    parts = re.split(r"[\s.-]+", _DATE.sub("", model.strip().lower()))
    if parts[0] != "claude":
        return _DATE.sub("", model.strip().lower())
    return "-".join([*(p for p in parts if not p.isdigit()), *(p for p in parts if p.isdigit())])
