"""Dates as HTTP writes them (RFC 9110, section 5.6.7)."""

from __future__ import annotations

import re
from calendar import timegm
from datetime import date
from email.utils import formatdate

_MONTHS = {name: number for number, name in enumerate(b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(), 1)}
_MONTH = rb"(?P<month>" + b"|".join(_MONTHS) + rb")"
_TIME = rb"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)"
_FORMATS = (
    re.compile(rb"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), (?P<day>\d\d) " + _MONTH + rb" (?P<year>\d{4}) " + _TIME + rb" GMT"),
    re.compile(
        rb"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day, (?P<day>\d\d)-"
        + _MONTH
        + rb"-(?P<year>\d\d) "
        + _TIME
        + rb" GMT"
    ),
    re.compile(rb"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) " + _MONTH + rb" (?P<day>[ \d]\d) " + _TIME + rb" (?P<year>\d{4})"),
)


def parse(value: bytes, now: float = 0.0) -> float | None:
    """Seconds since the epoch; C{None} where C{value} is not a date in one of HTTP's three formats.

    @param now: By which a year of two digits is understood: the last one that is not more than 50 years ahead.
    """
    for pattern in _FORMATS:
        found = pattern.fullmatch(value)
        if found:
            return _seconds(found, now)
    return None


def render(seconds: float) -> bytes:
    """Seconds since the epoch as the format that HTTP prefers."""
    return formatdate(seconds, usegmt=True).encode("ascii")


def _seconds(found: re.Match[bytes], now: float) -> float | None:
    hour, minute, second = (int(found[name]) for name in ("hour", "minute", "second"))
    year, day = int(found["year"]), int(found["day"])
    if len(found["year"]) == 2:
        year = _whole_year(year, now)
    try:
        date(year, month := _MONTHS[found["month"]], day)
    except ValueError:
        return None
    if hour > 23 or minute > 59 or second > 60:
        return None
    return float(timegm((year, month, day, hour, minute, second, 0, 0, 0)))


def _whole_year(two_digits: int, now: float) -> int:
    present = 1970 + int(now // 31_556_952)
    year = present - present % 100 + two_digits
    return year - 100 if year > present + 50 else year
