from __future__ import annotations

from datetime import UTC, datetime
from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.base.timestamps import rfc3339


class Rfc3339Tests(TestCase):
    def test_digits(self) -> None:
        """What is beyond them is left out."""
        for digits, text in (
            (0, "2026-11-23T10:00:00Z"),
            (3, "2026-11-23T10:00:00.987Z"),
            (6, "2026-11-23T10:00:00.987654Z"),
        ):
            self.assertEqual(rfc3339(1795428000.987654, digits), text)

    @given(st.floats(0, 4e9))
    def test_as_datetime_has_it(self, at: float) -> None:
        """To the microsecond, also just before a full second."""
        text = datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        self.assertEqual(rfc3339(at, digits=6), text)
