"""L{llmproxy.config.yaml}: YAML with positions."""

from __future__ import annotations

from typing import Any
from unittest import TestCase

from llmproxy.config.external_text import ExternalText
from llmproxy.config.yaml import Document, read


def tree(text: str, environ: dict[str, str] | None = None) -> Any:
    document = read(text, "f.yaml", environ or {})
    assert not document.problems, document.problems
    return document.tree


def problems(text: str) -> list[str]:
    return [str(problem) for problem in read(text, "f.yaml", {}).problems]


class Values(TestCase):
    def test_words_stay_words(self) -> None:
        """YAML 1.1 makes a boolean of C{on} and a number of C{1:30}; neither is meant here."""
        self.assertEqual(
            tree("{on: on, yes: no, 1: 1:30, null: off, a: 2024-01-01, b: 0x1F, c: 010, d: 1e3, e: 1_000, =: =}"),
            {
                "on": "on",
                "yes": "no",
                "1": "1:30",
                "null": "off",
                "a": "2024-01-01",
                "b": "0x1F",
                "c": "010",
                "d": "1e3",
                "e": "1_000",
                "=": "=",
            },
        )

    def test_scalars(self) -> None:
        """Booleans, numbers and nothing are what they are; quotes make text of anything."""
        self.assertEqual(
            tree("[true, FALSE, 12, -3, 1.5, ~, null, '', 'true', \"12\", !!str 12]"),
            [True, False, 12, -3, 1.5, None, None, "", "true", "12", "12"],
        )

    def test_an_empty_file(self) -> None:
        """Holds no settings, rather than nothing."""
        self.assertEqual(tree(""), {})
        self.assertEqual(tree("# only a comment\n"), {})

    def test_an_alias_repeats_a_section(self) -> None:
        """Each place has a value and a position of its own."""
        document = read("a: &x {k: 1}\nb: *x\n", "f.yaml", {})
        self.assertEqual(document.tree, {"a": {"k": 1}, "b": {"k": 1}})
        self.assertIsNot(document.tree["a"], document.tree["b"])

    def test_variables(self) -> None:
        """Plain ones mean what they look like, quoted ones are text; none can add a setting."""
        environ = {"N": "3", "EVIL": "x\nadmin: true"}
        found = tree("a: ${N}\nb: '${N}'\nc: ${EVIL}\nd: $${N}\n", environ)
        self.assertEqual(found, {"a": "3", "b": "3", "c": "x\nadmin: true", "d": "${N}"})
        self.assertEqual((found["a"].meaning, found["a"].source), (3, "${N}"))
        self.assertEqual(found["b"].meaning, "3")
        self.assertNotIsInstance(found["d"], ExternalText)


class Places(TestCase):
    def place(self, document: Document, *path: str | int) -> tuple[int, int]:
        at = document.place(path)
        return at.line, at.column

    def test_keys_and_items(self) -> None:
        """A setting is where its key is, an item of a list where it begins; from 1."""
        document = read("a:\n  b: 1\n  c:\n    - x\n    - {d: 2}\n", "f.yaml", {})
        self.assertEqual(self.place(document, "a"), (1, 1))
        self.assertEqual(self.place(document, "a", "b"), (2, 3))
        self.assertEqual(self.place(document, "a", "c", 0), (4, 7))
        self.assertEqual(self.place(document, "a", "c", 1, "d"), (5, 8))

    def test_what_is_not_there(self) -> None:
        """A missing setting is missing from the section around it."""
        document = read("x: 1\na:\n  b: 1\n", "f.yaml", {})
        self.assertEqual(self.place(document, "a", "missing", "deeper"), (2, 1))
        self.assertEqual(self.place(document, "missing"), (1, 1))


class Problems(TestCase):
    def test_all_of_them(self) -> None:
        """Everything is found in one run."""
        self.assertEqual(
            problems("a: ${NO}\nb: !x 1\nc: {d: 1, d: 2}\n? [x]\n: 1\na: 3\n"),
            [
                "f.yaml:1:1: a: the environment variable NO is not set (set it, or write ${NO:-default})",
                "f.yaml:2:1: b: the tag !x means nothing here",
                "f.yaml:3:11: c.d: stands here twice (first in line 3)",
                "f.yaml:4:3: a key must be text",
                "f.yaml:6:1: a: stands here twice (first in line 1)",
            ],
        )

    def test_not_yaml(self) -> None:
        """What cannot be read at all is told with its position."""
        for text, start in {
            "a: [1,\nb: 2": "f.yaml:2:5: is not YAML:",
            "a: 1\n\tb: 2": "f.yaml:2:1: is not YAML:",
            "a: 1\n---\nb: 2": "f.yaml:2:1: is not YAML:",
            "a: *x": "f.yaml:1:4: is not YAML:",
            "a: 1\nb: \x07": r"f.yaml:2:4: the character \x07",
            'a: "\\UFFFFFFFF"': "f.yaml:1:",
        }.items():
            (problem,) = problems(text)
            self.assertTrue(problem.startswith(start), problem)

    def test_a_variable_within_braces(self) -> None:
        """Its own braces would end the mapping; that is not easy to see."""
        (problem,) = problems("server: {max_connections: ${N}, x: 1}")
        self.assertIn('write "${NAME}" in quotes', problem)

    def test_explosions(self) -> None:
        """Neither depth, nor aliases of aliases, nor an alias of itself brings it down."""
        doubling = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{f'*a{i - 1}, ' * 9}]\n" for i in range(1, 12))
        for text in ("[" * 100_000, "{a: " * 60 + "1" + "}" * 60, "a: &a [*a]", "a: &a {b: *a}", doubling):
            (problem,) = problems(text)
            self.assertRegex(problem, "nested deeper|more than 20,000 values")

    def test_what_is_too_deep(self) -> None:
        """It is told where, before the rest is looked at: PyYAML alone takes a second for a few thousand brackets."""
        for text, column in (("[" * 100_000, 42), ("{" * 100_000, 42), ("- " * 50_000, 83), ("? " * 50_000, 83)):
            self.assertEqual(problems(text), [f"f.yaml:1:{column}: is nested deeper than 40 levels"])

    def test_what_has_too_many_values(self) -> None:
        """Nobody who has written no alias is told of one."""
        text = "".join(f"k{number}: 1\n" for number in range(20_001))
        self.assertEqual(problems(text), ["f.yaml:20000:9: holds more than 20,000 values"])
