"""What the bearer of a limited token is told of its limits, with the names that each provider's clients read."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import ceil

from llmproxy.base.timestamps import rfc3339

# What their names begin with, and how such a line begins.
_ANTHROPIC = (b"anthropic-ratelimit-", (b"a", b"A"))
_USUAL = (b"x-ratelimit-", (b"x", b"X"))


class RateLines:
    """Writes C{anthropic-ratelimit-…} for Anthropic's clients, C{x-ratelimit-…} for all others; of each unit of several
    rates the tightest.
    """

    __slots__ = ("_by_unit", "_lines", "_written")

    def __init__(self, rates: Sequence[tuple[str, int]], provider: str) -> None:
        """
        @param rates: The unit of each, C{requests} or C{tokens}, and what it allows in a minute.
        """
        name = "anthropic-ratelimit-{unit}-{what}: " if provider == "anthropic" else "x-ratelimit-{what}-{unit}: "
        by_unit: dict[str, list[int]] = {}
        self._lines: list[tuple[bytes, bytes, bytes]] = []
        for place, (unit, limit) in enumerate(rates):
            by_unit.setdefault(unit, []).append(place)
            first, left, reset = (
                name.format(unit=unit, what=what).encode("ascii") for what in ("limit", "remaining", "reset")
            )
            self._lines.append((b"%b%d" % (first, limit), left, reset))
        self._by_unit = tuple([(places[0], tuple(places[1:])) for places in by_unit.values()])
        self._written = _at if provider == "anthropic" else _in

    def lines(self, remaining: Sequence[int], resets: Sequence[float], now: float) -> list[bytes]:
        """How they stand after a request.

        @param remaining: What is left of each; C{resets}: seconds until nothing of it is used.
        @param now: Seconds since the epoch.
        """
        lines: list[bytes] = []
        last, written = -1.0, b""  # rates that were touched in the same tenth of a second end together
        for place, others in self._by_unit:
            for other in others:
                if remaining[other] < remaining[place]:
                    place = other
            reset = resets[place]
            if reset != last:
                last, written = reset, self._written(reset, now)
            limit, left, ends = self._lines[place]
            lines += (limit, b"%b%d" % (left, remaining[place]), ends + written)
        return lines


def _in(reset: float, _: float) -> bytes:
    return duration(reset)


def _at(reset: float, now: float) -> bytes:
    return _timestamp(ceil(now + reset))


def replace_rate_limits(passing: list[bytes], told: Sequence[bytes], provider: str) -> list[bytes]:
    """A provider's header lines with ours in the place of those that tell the limits of the key behind the token."""
    if not told:
        return passing
    prefixes, initials = _ANTHROPIC if provider == "anthropic" else _USUAL
    return [line for line in passing if line[:1] not in initials or not line.lower().startswith(prefixes)] + list(told)


def duration(seconds: float) -> bytes:
    """As Go writes durations, and so OpenAI: C{1s}, C{6m0s}, C{120ms}."""
    return _duration(ceil(seconds * 1000 - 1e-6))


@lru_cache(1024)  # nearly all are those of a minute that has just begun
def _duration(milliseconds: int) -> bytes:
    if milliseconds < 1000:
        return b"%dms" % milliseconds if milliseconds > 0 else b"0s"
    minutes, rest = divmod(milliseconds, 60_000)
    whole, part = divmod(rest, 1000)
    told = (b"%d.%03d" % (whole, part)).rstrip(b"0") + b"s" if part else b"%ds" % whole
    if not minutes:
        return told
    return b"%dm%b" % (minutes, told) if minutes < 60 else b"%dh%dm%b" % (minutes // 60, minutes % 60, told)


@lru_cache(1024)
def _timestamp(at: int) -> bytes:
    return rfc3339(at, digits=0).encode("ascii")
