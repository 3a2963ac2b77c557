"""What the bearer of a limited token is told of its limits, with the names that each provider's clients read."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from math import ceil
from typing import NamedTuple

_OURS = {"anthropic": (b"anthropic-ratelimit-",)}
_USUAL = (b"x-ratelimit-",)


class Standing(NamedTuple):
    """How a rate stands after a request.

    @ivar unit: C{requests} or C{tokens}, in a minute.
    @ivar reset: Seconds until nothing of it is used.
    """

    unit: str
    limit: int
    remaining: int
    reset: float


def tightest(standings: Sequence[Standing]) -> list[Standing]:
    """Of each unit the one of which least is left."""
    found: dict[str, Standing] = {}
    for standing in standings:
        known = found.get(standing.unit)
        if known is None or standing.remaining < known.remaining:
            found[standing.unit] = standing
    return list(found.values())


def fields(standings: Sequence[Standing], provider: str, now: float) -> dict[str, str]:
    """C{anthropic-ratelimit-…} for Anthropic's clients, C{x-ratelimit-…} for all others.

    @param now: Seconds since the epoch.
    """
    told: dict[str, str] = {}
    for unit, limit, remaining, reset in tightest(standings):
        if provider == "anthropic":
            at = datetime.fromtimestamp(ceil(now + reset), UTC)
            values = {"limit": str(limit), "remaining": str(remaining), "reset": f"{at:%Y-%m-%dT%H:%M:%SZ}"}
            told |= {f"anthropic-ratelimit-{unit}-{name}": value for name, value in values.items()}
        else:
            values = {"limit": str(limit), "remaining": str(remaining), "reset": duration(reset)}
            told |= {f"x-ratelimit-{name}-{unit}": value for name, value in values.items()}
    return told


def replaced(lines: list[bytes], told: dict[str, str], provider: str) -> list[bytes]:
    """A provider's header lines with ours in the place of those that tell the limits of the key behind the token."""
    if not told:
        return lines
    prefixes = _OURS.get(provider, _USUAL)
    kept = [line for line in lines if not line.lower().startswith(prefixes)]
    return kept + [f"{name}: {value}".encode("ascii") for name, value in told.items()]


def duration(seconds: float) -> str:
    """As Go writes durations, and so OpenAI: C{1s}, C{6m0s}, C{120ms}."""
    milliseconds = ceil(seconds * 1000 - 1e-6)
    if milliseconds < 1000:
        return f"{max(milliseconds, 0)}ms" if milliseconds > 0 else "0s"
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    told = f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + told
