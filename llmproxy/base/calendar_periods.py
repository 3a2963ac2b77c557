"""The periods that budgets are for: days and months of the UTC calendar, or all time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

PERIODS = ("day", "month", "lifetime")


class Span(NamedTuple):
    """One period.

    @ivar label: Names it among all others: C{day:2026-11-25}, C{month:2026-11}, C{lifetime}.
    @ivar begins: Seconds since the epoch; C{ends} likewise, C{0.0} for never.
    """

    label: str
    begins: float
    ends: float


def span(period: str, now: float) -> Span:
    """The period of that kind in which C{now} lies. Periods begin at midnight UTC."""
    if period == "lifetime":
        return Span("lifetime", 0.0, 0.0)
    today = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "day":
        return Span(f"day:{today:%Y-%m-%d}", today.timestamp(), (today + timedelta(days=1)).timestamp())
    first = today.replace(day=1)
    following = (first + timedelta(days=32)).replace(day=1)
    return Span(f"month:{first:%Y-%m}", first.timestamp(), following.timestamp())


class Calendar:
    """Remembers the present periods, so that the usual request computes none."""

    def __init__(self) -> None:
        self._known: dict[str, Span] = {}

    def span(self, period: str, now: float) -> Span:
        known = self._known.get(period)
        if known is None or not known.begins <= now < (known.ends or now + 1):
            known = self._known[period] = span(period, now)
        return known
