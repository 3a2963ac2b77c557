"""Regular expressions mean the same on every CPython that this package may run on."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any
from unittest import TestCase

import llmproxy

_parse = re._parser.parse  # type: ignore[attr-defined]
_WRITTEN = re.compile(r"[*+?}]\+|\(\?>")  # what none of them can do without


def troubled(pattern: str | bytes) -> bool:
    """Whether a pattern has a possessive quantifier on a group, or an atomic group.

    CPython before 3.11.5, such as Debian 12's, mishandles both where something within can match in several ways
    (gh-106052).
    """
    try:
        return _any_group(_parse(pattern))
    except (re.error, OverflowError):
        return False  # no pattern, or a piece of one


def _any_group(parsed: Any) -> bool:
    for op, argument in parsed:
        name = str(op)
        if name == "ATOMIC_GROUP":
            return True
        if name == "POSSESSIVE_REPEAT" and _is_group(argument[2]):
            return True
        if any(_any_group(part) for part in _parts(argument)):
            return True
    return False


def _is_group(repeated: Any) -> bool:
    """An empty one, as in a list of characters that is no pattern, does no harm."""
    if len(repeated) != 1:
        return len(repeated) > 1
    op, argument = repeated[0]
    return str(op) == "BRANCH" or (str(op) == "SUBPATTERN" and len(argument[-1]) > 0)


def _parts(argument: Any) -> list[Any]:
    """The patterns within, however they are kept."""
    if isinstance(argument, re._parser.SubPattern):  # type: ignore[attr-defined]
        return [argument]
    if isinstance(argument, list | tuple):
        return [part for each in argument for part in _parts(each)]
    return []


class Patterns(TestCase):
    def test_none_needs_a_newer_python(self) -> None:
        """Usage would be lost on Debian 12 without a word."""
        found = []
        for path in Path(llmproxy.__file__).parent.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                text = node.value if isinstance(node, ast.Constant) else None
                if isinstance(text, bytes):
                    text = text.decode("latin-1")
                if isinstance(text, str) and _WRITTEN.search(text) and troubled(text):
                    found.append(f"{path}:{node.lineno}")  # type: ignore[attr-defined]
        self.assertEqual(found, [])

    def test_what_is_recognised(self) -> None:
        for pattern in (r"(?:aa|b)*+", rb'(?:[^"\\]++|\\.)*+', r"x(?:%b)*+]", r"(?>aa|b)", r"(?:c(?:ab)++)?", r"(a)?+"):
            with self.subTest(pattern=pattern):
                self.assertTrue(troubled(pattern))
        for pattern in (r"[^a]*+", r"a++", rb"[!()*+,;]", r"\)\*+", r"\d{2}+", "(?:"):
            with self.subTest(pattern=pattern):
                self.assertFalse(troubled(pattern))
