"""Budgets begin anew at midnight UTC."""

from __future__ import annotations

import unittest
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.base.calendar_periods import PERIODS, Calendar, span


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


class SpanTests(unittest.TestCase):
    def test_a_day(self) -> None:
        label, begins, ends = span("day", at("2026-11-25T23:59:59"))
        self.assertEqual(
            (label, begins, ends), ("day:2026-11-25", at("2026-11-25T00:00:00"), at("2026-11-26T00:00:00"))
        )

    def test_the_last_month_of_a_year(self) -> None:
        label, begins, ends = span("month", at("2026-12-31T12:00:00"))
        self.assertEqual((label, begins, ends), ("month:2026-12", at("2026-12-01T00:00:00"), at("2027-01-01T00:00:00")))

    def test_all_time(self) -> None:
        self.assertEqual(span("lifetime", 5.0), ("lifetime", 0.0, 0.0))

    @given(st.floats(0, 4e9), st.sampled_from(PERIODS[:2]))
    def test_every_moment_is_in_its_period(self, now: float, period: str) -> None:
        found = span(period, now)
        self.assertTrue(found.begins <= now < found.ends)
        self.assertNotEqual(span(period, found.ends).label, found.label)
        self.assertEqual(span(period, found.begins), found)


class CalendarTests(unittest.TestCase):
    def test_midnight(self) -> None:
        """What is remembered is given up when its period ends."""
        calendar, midnight = Calendar(), at("2026-11-26T00:00:00")
        self.assertEqual(calendar.span("day", midnight - 1).label, "day:2026-11-25")
        self.assertIs(calendar.span("day", midnight - 2), calendar.span("day", midnight - 1))
        self.assertEqual(calendar.span("day", midnight).label, "day:2026-11-26")
        self.assertEqual(calendar.span("day", midnight - 1).label, "day:2026-11-25")
        self.assertEqual(calendar.span("lifetime", midnight).label, "lifetime")
