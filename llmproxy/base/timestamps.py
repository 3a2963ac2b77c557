"""Times as logs, the audit log, the management API and rate-limit headers write them."""

from __future__ import annotations

from functools import lru_cache
from math import floor
from time import gmtime, strftime


def utc_day(at: float) -> str:
    """The UTC day of a time in seconds since the epoch: C{2026-11-25}."""
    return _day(int(at // 86400))


@lru_cache(64)
def _day(number: int) -> str:
    return strftime("%Y-%m-%d", gmtime(number * 86400))


def rfc3339(at: float, digits: int = 3) -> str:
    """C{2026-11-23T10:00:00.000Z}: seconds since the epoch in UTC, as RFC 3339, section 5.6, has it.

    @param digits: Of the fraction of a second, 0 to 6; what is beyond is left out, not rounded.
    """
    second, micros = split_seconds(at)
    return f"{utc_second(second)}.{f'{micros:06d}'[:digits]}Z" if digits else f"{utc_second(second)}Z"


def split_seconds(at: float) -> tuple[int, int]:
    """Whole seconds, and the microseconds since then."""
    whole = floor(at)
    micros = round((at - whole) * 1_000_000)
    return (whole, micros) if micros < 1_000_000 else (whole + 1, 0)


@lru_cache(8)  # log lines of one second have it in common
def utc_second(whole: int) -> str:
    """C{2026-11-23T10:00:00}"""
    return strftime("%Y-%m-%dT%H:%M:%S", gmtime(whole))
