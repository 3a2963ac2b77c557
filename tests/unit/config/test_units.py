"""L{llmproxy.config.units}: durations and sizes as people write them."""

from __future__ import annotations

from typing import Any
from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.config.units import duration, duration_text, size, size_text


class Durations(TestCase):
    def test_written_as_people_do(self) -> None:
        """Every unit, and several in a row."""
        for text, seconds in {
            "120s": 120.0,
            "1m30s": 90.0,
            "500ms": 0.5,
            "1h": 3600.0,
            "2d": 172800.0,
            "1w": 604800.0,
            "0.5s": 0.5,
            "1us": 1e-6,
            "1µs": 1e-6,
            "0": 0.0,
            "0s": 0.0,
        }.items():
            self.assertEqual(duration(text), seconds, text)
        self.assertEqual(duration(0), 0.0)

    def test_a_program_gives_seconds(self) -> None:
        """A float is seconds already."""
        self.assertEqual(duration(2.5), 2.5)

    def test_anything_else_is_refused(self) -> None:
        """Nothing is guessed: not a missing unit, not a sign, not a gap."""
        bad: list[Any] = [
            "fast",
            "",
            "30",
            "-1s",
            "+1s",
            "1m 3s",
            "1 s",
            "1e3s",
            "s",
            "1mm",
            "1.2.3s",
            "١s",
            "9" * 5000,
        ]
        bad += [30, True, False, None, [], {}, -1.0, float("nan"), float("inf"), "40000d", 10**5000]
        for value in bad:
            with self.assertRaisesRegex(ValueError, "is not a duration"):
                duration(value)

    def test_a_bare_number_is_shown_with_a_unit(self) -> None:
        """Who writes 30 is told to write 30s."""
        with self.assertRaisesRegex(ValueError, r'"30" is not a duration \(try 30s\)'):
            duration(30)
        with self.assertRaisesRegex(ValueError, r'"fast" is not a duration \(try 120s\)'):
            duration("fast")

    @given(st.integers(0, 3650 * 86400 * 10**6))
    def test_written_and_read_again(self, microseconds: int) -> None:
        """Writing a duration of up to ten years does not lose a microsecond."""
        seconds = duration(microseconds / 10**6)
        self.assertEqual(duration(duration_text(seconds)), seconds)


class Sizes(TestCase):
    def test_written_as_people_do(self) -> None:
        """Powers of 1000 and of 1024, in any case, and plain bytes."""
        for text, count in {
            "64KiB": 65536,
            "10MB": 10**7,
            "1 GiB": 2**30,
            "5b": 5,
            "7": 7,
            "0": 0,
            "1kb": 1000,
        }.items():
            self.assertEqual(size(text), count, text)
        self.assertEqual(size(12), 12)

    def test_anything_else_is_refused(self) -> None:
        """A size is a whole number of bytes, not below zero."""
        bad: list[Any] = ["big", "", "1.5MiB", "-1", "1 XB", "1MiBs", "٣", True, None, 1.5, -1, [], 10**5000, "9" * 500]
        for value in bad:
            with self.assertRaisesRegex(ValueError, "is not a size"):
                size(value)

    @given(st.integers(0, 10**15 - 1))
    def test_written_and_read_again(self, count: int) -> None:
        """Writing a size loses nothing."""
        self.assertEqual(size(size_text(count)), count)
