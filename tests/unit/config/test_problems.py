"""L{llmproxy.config.problems}."""

from __future__ import annotations

import time
from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.config.external_text import ExternalText
from llmproxy.config.problems import Location, Problem, SettingsError, dotted, quoted


class Problems(TestCase):
    def test_as_it_is_written(self) -> None:
        """The form that editors and people can follow."""
        path = ("apis", "openai", "timeouts", "request")
        problem = Problem.at(Location("etc/apis.yaml", 12, 7), path, '"fast" is not a duration (try 120s)')
        self.assertEqual(
            str(problem), 'etc/apis.yaml:12:7: apis.openai.timeouts.request: "fast" is not a duration (try 120s)'
        )

    def test_without_a_line(self) -> None:
        """What is not in a file has none; what is not a setting has no path."""
        self.assertEqual(str(Problem("X_FILE", 0, 0, "", "is empty")), "X_FILE: is empty")

    def test_several(self) -> None:
        """An error has all of them, a line each."""
        error = SettingsError([Problem("a", 1, 1, "x", "bad"), Problem("a", 2, 1, "y", "bad")])
        self.assertEqual(str(error), "a:1:1: x: bad\na:2:1: y: bad")

    def test_paths(self) -> None:
        """Items by their number; names that are none in quotes."""
        self.assertEqual(dotted(("server", "listen", 2)), "server.listen[2]")
        self.assertEqual(dotted(("apis", "a b\n", "x")), 'apis."a b\\n".x')


class Quoted(TestCase):
    def test_a_variable_shows_its_name(self) -> None:
        """What a variable in the file stands for may be a secret."""
        self.assertEqual(quoted(ExternalText("sk-secret", "${KEY}")), '"${KEY}"')

    def test_credentials_in_a_url_are_hidden(self) -> None:
        """Also where the password holds a slash or an at sign."""
        self.assertEqual(quoted("postgresql://u:p@h/d"), '"postgresql://***@h/d"')
        self.assertNotIn("word", quoted("redis://u:pass/word@1@h"))

    def test_many_slashes(self) -> None:
        """They are looked at once, not once for each: that would take seconds."""
        began = time.thread_time()
        self.assertIn("////", quoted("/" * 30_000))
        self.assertLess(time.thread_time() - began, 0.5)

    def test_long_text_is_cut(self) -> None:
        """A message stays a line."""
        self.assertLess(len(quoted("x" * 5000)), 100)

    def test_values_that_are_not_text(self) -> None:
        """As they are written in YAML."""
        self.assertEqual(quoted(True), '"true"')
        self.assertEqual(quoted(None), '"null"')
        self.assertEqual(quoted({}), "a mapping")
        self.assertEqual(quoted(10**5000), "a very large number")

    @given(st.text() | st.integers() | st.floats() | st.none() | st.booleans())
    def test_always_one_printable_line(self, value: object) -> None:
        """No value can spoil the terminal or forge a line of a log."""
        self.assertTrue(quoted(value).isprintable())
