"""What the bearer of a limited token is told of its limits, with the names that each provider's clients read."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import ceil

from llmproxy.base.timestamps import rfc3339

MAX_FORMATS = 64  # that one plan's lines are kept in


class RateLines:
    """Writes C{anthropic-ratelimit-…} for Anthropic's clients, C{x-ratelimit-…} for all others; of each unit of several
    rates the tightest.
    """

    __slots__ = ("_by_unit", "_formats", "_is_dated", "_limits", "_names")

    def __init__(self, rates: Sequence[tuple[str, int]], provider: str) -> None:
        """
        @param rates: The unit of each, C{requests} or C{tokens}, and what it allows in a minute.
        """
        name = "anthropic-ratelimit-{unit}-{what}: " if provider == "anthropic" else "x-ratelimit-{what}-{unit}: "
        by_unit: dict[str, list[int]] = {}
        for place, (unit, _) in enumerate(rates):
            by_unit.setdefault(unit, []).append(place)
        self._names = [[name.format(unit=unit, what=w) for w in ("limit", "remaining", "reset")] for unit in by_unit]
        self._limits = [limit for _, limit in rates]
        self._by_unit = tuple([(places[0], tuple(places[1:])) for places in by_unit.values()])
        self._formats: dict[tuple[int, ...], bytes] = {}
        self._is_dated = provider == "anthropic"

    def after_taking(self, left: Sequence[int], reset: float, now: float) -> bytes:
        """How they stand after a request that has taken of all of them: lines, with line ends between them.

        @param left: What is left of each; C{reset}: seconds until nothing of them is used.
        @param now: Seconds since the epoch.
        """
        tightest: list[int] = []
        values: list[int | bytes] = []
        ends = _timestamp(ceil(now + reset)) if self._is_dated else _duration(ceil(reset * 1000 - 1e-6))
        for place, others in self._by_unit:
            least = left[place]
            for other in others:
                if left[other] < least:
                    place, least = other, left[other]
            tightest.append(place)
            values += (least, ends)
        key = tuple(tightest)
        return (self._formats.get(key) or self._format(key)) % tuple(values)

    def lines(self, left: Sequence[int], resets: Sequence[float], now: float) -> bytes:
        """How they stand: as L{after_taking}, where each is whole at a time of its own."""
        tightest = [min((place, *others), key=left.__getitem__) for place, others in self._by_unit]
        values = [value for place in tightest for value in (left[place], self._end(resets[place], now))]
        return self._format(tuple(tightest)) % tuple(values)

    def _end(self, reset: float, now: float) -> bytes:
        return _timestamp(ceil(now + reset)) if self._is_dated else duration(reset)

    def _format(self, tightest: tuple[int, ...]) -> bytes:
        """The lines of these rates, one of each unit, without what is left and when they are whole."""
        known = self._formats.get(tightest)
        if known is None:
            if len(self._formats) >= MAX_FORMATS:
                self._formats.clear()
            lines = [
                f"{limit}{self._limits[place]}\r\n{remaining}%d\r\n{reset}%b"
                for place, (limit, remaining, reset) in zip(tightest, self._names, strict=True)
            ]
            known = self._formats[tightest] = "\r\n".join(lines).encode("ascii")
        return known


def names_begin_with(provider: str) -> bytes:
    """How the names of those fields begin, in lower case, that tell a provider's clients how their limits stand."""
    return b"anthropic-ratelimit-" if provider == "anthropic" else b"x-ratelimit-"


def replace_rate_limits(passing: list[bytes], told: bytes, provider: str) -> list[bytes]:
    """A provider's header lines with ours in the place of those that tell the limits of the key behind the token.

    @param told: As L{RateLines} writes them.
    """
    if not told:
        return passing
    theirs = names_begin_with(provider)
    return [line for line in passing if not line.lower().startswith(theirs)] + told.split(b"\r\n")


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
