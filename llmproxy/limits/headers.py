"""What the bearer of a limited token is told of its limits, with the names that each provider's clients read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil
from typing import NamedTuple

from llmproxy.base.timestamps import rfc3339

_ANTHROPIC = (b"anthropic-ratelimit-",)
_USUAL = (b"x-ratelimit-",)


class RateStatus(NamedTuple):
    """How a rate stands after a request.

    @ivar unit: C{requests} or C{tokens}, in a minute.
    @ivar reset: Seconds until nothing of it is used.
    """

    unit: str
    limit: int
    remaining: int
    reset: float


def lines(standings: Sequence[RateStatus], provider: str, now: float) -> list[bytes]:
    """C{anthropic-ratelimit-…} for Anthropic's clients, C{x-ratelimit-…} for all others; of each unit the tightest.

    @param now: Seconds since the epoch.
    """
    if not standings:
        return []
    lines: list[str] = []
    last, written = -1.0, ""  # rates that were touched in the same tenth of a second end together
    for unit, limit, remaining, reset in standings if len(standings) < 2 else _tightest(standings):
        if reset != last:
            last = reset
            written = rfc3339(ceil(now + reset), digits=0) if provider == "anthropic" else duration(reset)
        if provider == "anthropic":
            lines.append(
                f"anthropic-ratelimit-{unit}-limit: {limit}\n"
                f"anthropic-ratelimit-{unit}-remaining: {remaining}\n"
                f"anthropic-ratelimit-{unit}-reset: {written}"
            )
        else:
            lines.append(
                f"x-ratelimit-limit-{unit}: {limit}\n"
                f"x-ratelimit-remaining-{unit}: {remaining}\n"
                f"x-ratelimit-reset-{unit}: {written}"
            )
    return "\n".join(lines).encode("ascii").split(b"\n")


def _tightest(standings: Iterable[RateStatus]) -> Iterable[RateStatus]:
    found: dict[str, RateStatus] = {}
    for standing in standings:
        known = found.get(standing.unit)
        if known is None or standing.remaining < known.remaining:
            found[standing.unit] = standing
    return found.values()


def replace_rate_limits(passing: list[bytes], told: Sequence[bytes], provider: str) -> list[bytes]:
    """A provider's header lines with ours in the place of those that tell the limits of the key behind the token."""
    if not told:
        return passing
    prefixes = _ANTHROPIC if provider == "anthropic" else _USUAL
    return [line for line in passing if not line.lower().startswith(prefixes)] + list(told)


def duration(seconds: float) -> str:
    """As Go writes durations, and so OpenAI: C{1s}, C{6m0s}, C{120ms}."""
    milliseconds = ceil(seconds * 1000 - 1e-6)
    if milliseconds < 1000:
        return f"{milliseconds}ms" if milliseconds > 0 else "0s"
    minutes, rest = divmod(milliseconds, 60_000)
    whole, part = divmod(rest, 1000)
    told = f"{whole}.{part:03d}".rstrip("0") + "s" if part else f"{whole}s"
    if not minutes:
        return told
    return f"{minutes}m{told}" if minutes < 60 else f"{minutes // 60}h{minutes % 60}m{told}"
