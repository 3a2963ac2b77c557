"""Budgets as people write them: C{20/month}, C{0.50/day}, C{1000000} (for all time)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal
from typing import NamedTuple

from llmproxy.base.calendar_periods import PERIODS
from llmproxy.model import Budget

NANO = 1_000_000_000  # nano-dollars in a dollar
MOST_USD = 1_000_000  # a billion of them is 2**50, which every counter keeps exactly
MOST_TOKENS = 10**15

_WRITTEN = r"([0-9]{1,16}(?:\.[0-9]{1,9})?)(?:/(day|month|lifetime))?"
USD = rf"^{_WRITTEN}$"
TOKENS = r"^([0-9]{1,16})(?:/(day|month|lifetime))?$"


class ChargedUse(NamedTuple):
    """What requests of one token used of one API on one day: what budgets are charged with.

    @ivar at: Seconds since the epoch, within that day.
    @ivar nanos: Nano-dollars; of requests without a price none.
    """

    at: float
    project_id: str
    token_id: str
    api: str
    tokens: int
    nanos: int


def usd(text: str) -> Budget:
    """A budget in dollars; L{ValueError} says what was meant."""
    amount, period = _parts(text, USD, "20/month or 0.50/day")
    return _bounded(int(Decimal(amount) * NANO), MOST_USD * NANO, period, f"{MOST_USD:,} dollars")


def tokens(text: str) -> Budget:
    """A budget in tokens; L{ValueError} says what was meant."""
    amount, period = _parts(text, TOKENS, "1000000/day or 5000000/month")
    return _bounded(int(amount), MOST_TOKENS, period, f"{MOST_TOKENS:,} tokens")


def usd_text(budget: Budget) -> str:
    """As L{usd} reads it."""
    dollars, rest = divmod(budget.amount, NANO)
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    return f"{dollars}{fraction}/{budget.period}"


def tokens_text(budget: Budget) -> str:
    """As L{tokens} reads it."""
    return f"{budget.amount}/{budget.period}"


def each_once(budgets: Iterable[Budget]) -> tuple[Budget, ...]:
    """The budgets, the shortest period first; L{ValueError} where a period stands there twice."""
    listed = sorted(budgets, key=lambda budget: PERIODS.index(budget.period))
    if len({budget.period for budget in listed}) < len(listed):
        raise ValueError("there must be at most one budget for each period")
    return tuple(listed)


def nano(dollars: float) -> int:
    """Dollars as whole nano-dollars, to the nearest: what binary fractions add is none. No request costs more than the
    largest budget has: what is beyond that no counter could keep."""
    return round((dollars if dollars < MOST_USD else MOST_USD) * NANO)


def _parts(text: str, pattern: str, example: str) -> tuple[str, str]:
    match = re.fullmatch(pattern, text)
    if match is None:
        raise ValueError(f"is not a budget (try {example}; periods are day, month and lifetime)")
    return match[1], match[2] or "lifetime"


def _bounded(amount: int, most: int, period: str, told: str) -> Budget:
    if not 0 < amount <= most:
        raise ValueError(f"must be more than nothing and at most {told}")
    return Budget(amount, period)
