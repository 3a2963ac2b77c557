"""HTTP's three ways to write a date."""

from __future__ import annotations

from email.utils import formatdate
from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.caching.rules.dates import parse, render

NOW = 1_790_000_000.0  # 2026


class Dates(TestCase):
    def test_the_three_formats(self) -> None:
        """The same moment, however it is written."""
        for value in (
            b"Sun, 06 Nov 1994 08:49:37 GMT",
            b"Sunday, 06-Nov-94 08:49:37 GMT",
            b"Sun Nov  6 08:49:37 1994",
        ):
            self.assertEqual(parse(value, NOW), 784111777.0, value)

    def test_a_year_of_two_digits(self) -> None:
        """It is at most 50 years ahead."""
        self.assertEqual(parse(b"Thursday, 18-Aug-50 02:01:18 GMT", NOW), 2544400878.0)
        self.assertLess(parse(b"Thursday, 18-Aug-77 02:01:18 GMT", NOW) or 0, NOW)

    def test_what_is_no_date(self) -> None:
        """It counts as no date at all; nothing is guessed."""
        for value in (
            b"", b"0", b"-1", b"Thu, 18 Aug 2050 02:01:18 UTC", b"Thu, 18 Aug 2050 2:01:18 GMT",
            b"Thu, 31 Feb 2050 02:01:18 GMT", b"Thu, 18 Aug 2050 25:01:18 GMT", b"Thu, 18 AUG 2050 02:01:18 GMT",
            b"Thu, 18 Aug 0000 02:01:18 GMT", b"Thu, 18 Aug 2050 02:01:18 GMT, x",
        ):  # fmt: skip
            self.assertIsNone(parse(value, NOW), value)

    @given(st.integers(0, 253_402_300_799))
    def test_what_is_written_is_read(self, at: int) -> None:
        """Every moment until the year 9999."""
        self.assertEqual(parse(formatdate(at, usegmt=True).encode(), NOW), float(at))
        self.assertEqual(parse(render(at + 0.75), NOW), float(at))

    @given(st.binary(max_size=60), st.floats(0, 1e11))
    def test_any_bytes(self, value: bytes, now: float) -> None:
        """Nothing fails, whatever stands there."""
        parse(value, now)
