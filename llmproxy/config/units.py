"""Durations and sizes as people write them."""

from __future__ import annotations

import math
import re
from typing import Any

import durationpy

from llmproxy.config.problems import quoted

DURATION = r"(?:[0-9]+(?:\.[0-9]+)?(?:ns|us|µs|ms|s|m|h|d|w))+|0"
SIZE = r"[0-9]{1,15}\s*(?:[Bb]|[KkMmGg][Ii]?[Bb])?"

PERCENT = r"[0-9]{1,3}(?:\.[0-9]{1,3})?\s*%|0"

MAX_DURATION_SECONDS = 36525 * 86400.0  # a hundred years
_SIZES = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def duration(value: Any) -> float:
    """Seconds in C{120s}, C{1m30s}, C{500ms}, or C{0}. Raises L{ValueError} with what was meant.

    A L{float} is seconds already: that is how a program, which has no other way to say it, gives one.
    """
    seconds = value if isinstance(value, float) else _seconds(value)
    if not (math.isfinite(seconds) and 0 <= seconds <= MAX_DURATION_SECONDS):
        raise ValueError(f"{quoted(value)} is not a duration (try {_meant(value)})")
    return round(seconds, 6)


def _seconds(value: Any) -> float:
    text = "" if isinstance(value, bool) or not isinstance(value, str | int) else str(truncate(value))
    if not re.fullmatch(DURATION, text):
        return -1.0
    try:
        return float(durationpy.from_str(text).total_seconds())
    except durationpy.DurationError:
        return -1.0


def _meant(value: Any) -> str:
    plain = isinstance(value, str | int) and re.fullmatch(r"[0-9]{1,8}", str(truncate(value)))
    return f"{int(value)}s" if plain and not isinstance(value, bool) else "120s"


def size(value: Any) -> int:
    """Bytes in C{64KiB}, C{10MB}, or a plain number. Raises L{ValueError} with what was meant."""
    text = "" if isinstance(value, bool) or not isinstance(value, str | int) else str(truncate(value))
    match = re.fullmatch(r"([0-9]{1,15})\s*([A-Za-z]*)", text)
    if match is None or match[2].upper() not in _SIZES:
        raise ValueError(f"{quoted(value)} is not a size (try 64KiB)")
    return int(match[1]) * _SIZES[match[2].upper()]


def truncate(value: str | int) -> str | int:
    """Keep what is short enough to be read at all: turning thousands of digits into text is itself an error."""
    if isinstance(value, int):
        return value if abs(value) < 10**30 else "?"
    return str(value)[:100]


def percent(value: Any) -> float:
    """The share that C{20%} is: C{0.2}. Raises L{ValueError} with what was meant.

    A L{float} is a share already: that is how a program gives one.
    """
    share = value if isinstance(value, float) else _share(value)
    if not 0 <= share <= 1:
        raise ValueError(f"{quoted(value)} is not a percentage (try 20%)")
    return round(share, 6)


def _share(value: Any) -> float:
    text = "" if isinstance(value, bool) or not isinstance(value, str | int) else str(truncate(value))
    return float(text.rstrip("%").rstrip()) / 100 if re.fullmatch(PERCENT, text) else -1.0


def percent_text(share: float) -> str:
    """Write a share so that L{percent} reads the same one: C{20%}."""
    return f"{share * 100:.3f}".rstrip("0").rstrip(".") + "%"


def duration_text(seconds: float) -> str:
    """Write a duration so that L{duration} reads the same one: C{120s}, C{0.5s}."""
    return f"{seconds:.6f}".rstrip("0").rstrip(".") + "s"


def size_text(count: int) -> str:
    """Write a size so that L{size} reads the same one: C{64KiB}."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count and count % factor == 0:
            return f"{count // factor}{unit}"
    return str(count)
