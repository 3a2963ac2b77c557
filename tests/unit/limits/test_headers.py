"""What clients are told of their limits."""

from __future__ import annotations

import unittest

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.limits.headers import RateLines, duration, replace_rate_limits


def fields(standings: list[tuple[str, int, int, float]], provider: str, now: float) -> dict[str, str]:
    """
    @param standings: Of each rate its unit, its limit, what is left, and seconds until it is whole.
    """
    rates = RateLines([(unit, limit) for unit, limit, _, _ in standings], provider)
    lines = rates.lines([each[2] for each in standings], [each[3] for each in standings], now)
    return dict(line.split(": ", 1) for line in lines.decode().split("\r\n"))


NOW = 1_794_992_800.0  # 2026-11-18T09:06:40Z


class ToldTests(unittest.TestCase):
    def test_as_openai_says_it(self) -> None:
        told = fields([("requests", 60, 59, 1.0), ("tokens", 1000, 10, 72.5)], "openai", NOW)
        self.assertEqual(
            told,
            {
                "x-ratelimit-limit-requests": "60",
                "x-ratelimit-remaining-requests": "59",
                "x-ratelimit-reset-requests": "1s",
                "x-ratelimit-limit-tokens": "1000",
                "x-ratelimit-remaining-tokens": "10",
                "x-ratelimit-reset-tokens": "1m12.5s",
            },
        )

    def test_as_anthropic_says_it(self) -> None:
        told = fields([("requests", 60, 59, 0.4)], "anthropic", NOW)
        self.assertEqual(
            told,
            {
                "anthropic-ratelimit-requests-limit": "60",
                "anthropic-ratelimit-requests-remaining": "59",
                "anthropic-ratelimit-requests-reset": "2026-11-18T09:06:41Z",
            },
        )

    def test_the_tightest_of_several(self) -> None:
        told = fields([("requests", 60, 9, 1), ("requests", 600, 5, 1)], "openai", NOW)
        self.assertEqual((told["x-ratelimit-limit-requests"], told["x-ratelimit-remaining-requests"]), ("600", "5"))

    def test_ours_stand_in_the_place_of_the_providers(self) -> None:
        passing = [b"X-RateLimit-Limit-Requests: 9", b"anthropic-ratelimit-tokens-limit: 8", b"Retry-After: 1"]
        told = b"x-ratelimit-limit-requests: 1"
        self.assertEqual(
            replace_rate_limits(passing, told, "openai"),
            [b"anthropic-ratelimit-tokens-limit: 8", b"Retry-After: 1", b"x-ratelimit-limit-requests: 1"],
        )
        self.assertIs(replace_rate_limits(passing, b"", "openai"), passing)

    @given(
        st.lists(st.tuples(st.sampled_from(["requests", "tokens"]), st.integers(1, 9), st.integers(0, 9)), max_size=5),
        st.sampled_from(["openai", "anthropic"]),
        st.floats(0, 61),
    )
    def test_what_was_just_taken(self, rates: list[tuple[str, int, int]], provider: str, reset: float) -> None:
        """Is told in the same words as whatever else."""
        lines, left = RateLines([(unit, limit) for unit, limit, _ in rates], provider), [each[2] for each in rates]
        self.assertEqual(lines.after_taking(left, reset, NOW), lines.lines(left, [reset] * len(left), NOW))

    def test_durations(self) -> None:
        for seconds, told in ((0, "0s"), (0.0001, "1ms"), (0.12, "120ms"), (1, "1s"), (360, "6m0s"), (3600, "1h0m0s")):
            self.assertEqual(duration(seconds), told.encode())

    @given(st.floats(0, 1e6))
    def test_never_too_short(self, seconds: float) -> None:
        """Whoever waits as long as it says has waited long enough, and hardly longer."""
        text, total = duration(seconds).decode(), 0.0
        for unit, factor in (("h", 3600.0), ("m", 60.0)):
            if unit in text.replace("ms", ""):
                number, text = text.split(unit, 1)
                total += float(number) * factor
        total += float(text[:-2]) / 1000 if text.endswith("ms") else float(text[:-1])
        self.assertTrue(seconds - 1e-6 <= total <= seconds + 0.0011, (seconds, total))
