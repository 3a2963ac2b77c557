from __future__ import annotations

from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.base.attribution import CLAIMED, NO_VALUE, OF_TOKEN, Attributed, as_shown, decode, encode, redacted

TEXT = st.text(max_size=20)
VALUES = st.dictionaries(TEXT, st.tuples(TEXT, st.sampled_from([CLAIMED, OF_TOKEN, ""])), max_size=8)


class AttributionTexts(TestCase):
    @given(VALUES)
    def test_any_values(self, values: dict[str, tuple[str, str]]) -> None:
        """What was written is read, in its order."""
        written = [Attributed(name, *value) for name, value in values.items()]
        self.assertEqual(decode(encode(values.items())), tuple(written))

    @given(st.text())
    def test_any_text(self, text: str) -> None:
        """What is none has no values, and never fails."""
        self.assertIsInstance(decode(text), tuple)
        self.assertIsInstance(as_shown(text), dict)

    def test_shown(self) -> None:
        """What has no value is left out."""
        text = encode([("user", ("ada", OF_TOKEN)), ("session", NO_VALUE), ("team", ("x", CLAIMED))])
        expected = {"user": {"value": "ada", "claimed": False}, "team": {"value": "x", "claimed": True}}
        self.assertEqual(as_shown(text), expected)

    def test_redacted(self) -> None:
        """Values are masked one by one: what is left can be read."""
        text = encode([("user", ('Bearer "secret"', CLAIMED)), ("team", ("x", OF_TOKEN))])
        masked = redacted(text, lambda value: value.replace('"secret"', "[redacted]"))
        self.assertEqual([each.value for each in decode(masked)], ["Bearer [redacted]", "x"])
        self.assertEqual(redacted("", str), "")
