"""Lines of JSON that any reader takes."""

from __future__ import annotations

import json
from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.observability import jsonl

values = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()


class Lines(TestCase):
    @given(st.dictionaries(st.text(), values))
    def test_any_value_comes_back(self, fields: dict[str, object]) -> None:
        """Whatever stands in a record is read back as it was, and never begins a second line."""
        line = jsonl.line(fields)
        self.assertEqual(json.loads(line), fields)
        self.assertNotIn(b"\n", line)

    def test_half_a_surrogate_pair(self) -> None:
        """What UTF-8 cannot write is escaped, not lost."""
        self.assertIsNone(jsonl.encode({"a": "\ud800"}))
        self.assertEqual(jsonl.line({"a": "\ud800"}), b'{"a":"\\ud800"}')

    def test_no_number(self) -> None:
        """JSON has no infinity."""
        self.assertEqual(jsonl.line({"a": float("inf"), "b": float("nan")}), b'{"a":null,"b":null}')
