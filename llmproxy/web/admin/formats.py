"""How figures and times stand on the pages. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from markupsafe import Markup

NOTHING = "–"


def number(value: float | None) -> str:
    """With thousands: C{12,345}."""
    if value is None:
        return NOTHING
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.2f}"


def compact(value: float | None) -> str:
    """At most four characters and a letter: C{12.3k}, C{4.5M}; for axes and tiles."""
    if value is None:
        return NOTHING
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def usd(value: float | str | None) -> str:
    """Cents where it is dollars; where it is less, three digits that say something: C{$1,234.50}, C{$0.000420}."""
    if value is None:
        return NOTHING
    amount = float(value)
    if amount == 0:
        return "$0"
    if abs(amount) >= 1:
        return f"${amount:,.2f}"
    digits = 4
    while digits < 9 and abs(amount) < 10 ** -(digits - 2):
        digits += 1
    return f"${amount:.{digits}f}"


def usd_column(amounts: Iterable[float | None]) -> Callable[[float | None], str]:
    """How amounts stand below each other: all with as many digits behind the point, by the largest of them; what is
    something and would be shown as nothing is C{< $0.01}."""
    largest = max((abs(each) for each in amounts if each), default=0.0)
    digits = 2 if largest >= 100 else 4 if largest >= 1 else 6

    def shown(amount: float | None) -> str:
        if amount is None:
            return NOTHING
        least = 10**-digits
        return f"< ${least:.{digits}f}" if 0 < amount < least / 2 else f"${amount:,.{digits}f}"

    return shown


def usd_tick(value: float) -> str:
    """As L{usd}, as short as can be: beside an axis."""
    text = usd(value)
    return text.rstrip("0").rstrip(".") if "." in text else text


def seconds(value: float | None) -> str:
    """C{0 ms}, C{0.8 ms}, C{120 ms}, C{1.24 s}, C{2 m 05 s}."""
    if value is None:
        return NOTHING
    if value < 0.00005:
        return "< 0.1 ms" if value else "0 ms"
    if value < 0.01:
        return f"{value * 1000:.1f} ms"
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 60:
        return f"{value:.3g} s"
    return f"{value // 60:.0f} m {value % 60:02.0f} s"


def size(value: float | None) -> str:
    """Bytes, as C{12 B}, C{3.4 KiB}, C{256 MiB}."""
    if value is None:
        return NOTHING
    for unit in ("B", "KiB", "MiB"):
        if abs(value) < 1024:
            return f"{value:.3g} {unit}" if unit != "B" else f"{value:.0f} B"
        value /= 1024
    return f"{value:.3g} GiB"


def percent(part: float, whole: float) -> str:
    return NOTHING if not whole else share(100 * part / whole)


def share(value: float) -> str:
    """C{0 %}, C{0.3 %}, C{86.7 %}, C{250 %}."""
    return f"{value:,.0f} %" if value >= 100 or not value else f"{value:.1f} %"


def budget(text: str) -> str:
    """A budget in dollars, as the management API writes it: C{$1,234.50 per month}, C{$20 in all}."""
    amount, _, period = text.partition("/")
    dollars = usd(amount).removesuffix(".00") if float(amount) >= 1 else usd_tick(float(amount))
    return f"{dollars} in all" if period == "lifetime" else f"{dollars} per {period}" if period else dollars


def setting(value: object) -> str:
    """The value of a setting, or a detail of an audit entry, as it is written in YAML."""
    if value is None or value in ("", [], {}):
        return NOTHING
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ", ".join(map(setting, value))
    if isinstance(value, dict):
        return ", ".join(f"{name}: {setting(each)}" for name, each in value.items())
    return str(value)


def change(now: float | None, before: float | None) -> str:
    """How much more or less than before: C{+12 %}, C{±0 %}; C{""} where that says nothing."""
    if now is None or not before:
        return ""
    percent = round(100 * (now - before) / before)
    return f"{percent:+,} %".replace("-", "\N{MINUS SIGN}") if percent else "±0 %"


def parsed(text: str) -> datetime:
    """A time as the management API writes it."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def relative(text: str | None, now: float) -> Markup:
    """How long ago, or in how long, with the time itself on hover."""
    if not text:
        return Markup(NOTHING)
    at = parsed(text)
    exact = at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return Markup('<time datetime="{}" title="{}">{}</time>').format(text, exact, _distance(at.timestamp() - now))


def exact(text: str, now: float) -> Markup:
    """The time itself, and in how long that is."""
    at = parsed(text)
    shown = at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return Markup('<time datetime="{}">{}</time> ({})').format(text, shown, _distance(at.timestamp() - now))


def _distance(ahead: float) -> str:
    away = abs(ahead)
    if away < 1:
        return "now"
    for unit, length, limit in (("s", 1, 60), ("min", 60, 3600), ("h", 3600, 86400), ("d", 86400, 86400 * 90)):
        if away < limit:
            text = f"{away / length:.0f} {unit}"
            return f"in {text}" if ahead > 0 else f"{text} ago"
    text = f"{away / 86400 / 30.4:.0f} months"
    return f"in {text}" if ahead > 0 else f"{text} ago"


def label(text: str, step: float) -> str:
    """A point of time under a plot whose points are so many seconds apart."""
    return parsed(text).strftime("%H:%M" if step < 10_800 else "%d %b" if step >= 86_400 else "%d %b %H:00")


def period_label(period: str) -> str:
    """A day or a month of a usage report, under a plot: C{29 Nov}, or C{Nov’26}, where C{Nov 26} would be a day."""
    if not re.fullmatch(r"\d{4}-\d\d(-\d\d)?", period):
        return period
    day = datetime.fromisoformat(period if len(period) > 7 else period + "-01")
    return day.strftime("%d %b" if len(period) > 7 else "%b\N{RIGHT SINGLE QUOTATION MARK}%y")
