"""L{llmproxy.config.problems}."""

from __future__ import annotations

from unittest import TestCase

from llmproxy.config.problems import Place, Problem, SettingsError, dotted


class Problems(TestCase):
    def test_as_it_is_written(self) -> None:
        """The form that editors and people can follow."""
        path = ("apis", "openai", "timeouts", "request")
        problem = Problem.at(Place("etc/apis.yaml", 12, 7), path, '"fast" is not a duration (try 120s)')
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
