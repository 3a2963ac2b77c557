"""L{llmproxy.config.given}: what messages show."""

from __future__ import annotations

from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.config.given import Given, shown


class Shown(TestCase):
    def test_a_variable_shows_its_name(self) -> None:
        """What a variable in the file stands for may be a secret."""
        self.assertEqual(shown(Given("sk-secret", "${KEY}")), '"${KEY}"')

    def test_credentials_in_a_url_are_hidden(self) -> None:
        """Also where the password holds a slash or an at sign."""
        self.assertEqual(shown("postgresql://u:p@h/d"), '"postgresql://***@h/d"')
        self.assertNotIn("word", shown("redis://u:pass/word@1@h"))

    def test_long_text_is_cut(self) -> None:
        """A message stays a line."""
        self.assertLess(len(shown("x" * 5000)), 100)

    def test_values_that_are_not_text(self) -> None:
        """As they are written in YAML."""
        self.assertEqual(shown(True), '"true"')
        self.assertEqual(shown(None), '"null"')
        self.assertEqual(shown({}), "a mapping")
        self.assertEqual(shown(10**5000), "a very large number")

    @given(st.text() | st.integers() | st.floats() | st.none() | st.booleans())
    def test_always_one_printable_line(self, value: object) -> None:
        """No value can spoil the terminal or forge a line of a log."""
        self.assertTrue(shown(value).isprintable())
