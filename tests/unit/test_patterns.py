"""Regular expressions mean the same on every CPython that this package may run on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType
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


def texts(constant: object) -> Iterator[str]:
    """The strings within, those of bytes too: of compiled code, which is kept on disk, so that nothing is parsed."""
    if isinstance(constant, CodeType):
        constant = constant.co_consts
    if isinstance(constant, tuple | frozenset):
        for each in constant:
            yield from texts(each)
    elif isinstance(constant, bytes):
        yield constant.decode("latin-1")
    elif isinstance(constant, str):
        yield constant


class Patterns(TestCase):
    def test_none_needs_a_newer_python(self) -> None:
        """Usage would be lost on Debian 12 without a word."""
        found = [
            f"{path}: {text}"
            for path in Path(llmproxy.__file__).parent.rglob("*.py")
            for text in texts(SourceFileLoader(path.stem, str(path)).get_code(path.stem))
            if _WRITTEN.search(text) and troubled(text)
        ]
        self.assertEqual(found, [])

    def test_where_they_are_looked_for(self) -> None:
        code = compile("A = {'a', 'b' 'c'}\nclass B:\n  d = lambda: ('e', b'f', f'{A}g')", "", "exec")
        self.assertLessEqual({"a", "bc", "e", "f", "g"}, set(texts(code)))

    def test_what_is_recognised(self) -> None:
        for pattern in (r"(?:aa|b)*+", rb'(?:[^"\\]++|\\.)*+', r"x(?:%b)*+]", r"(?>aa|b)", r"(?:c(?:ab)++)?", r"(a)?+"):
            with self.subTest(pattern=pattern):
                self.assertTrue(troubled(pattern))
        for pattern in (r"[^a]*+", r"a++", rb"[!()*+,;]", r"\)\*+", r"\d{2}+", "(?:"):
            with self.subTest(pattern=pattern):
                self.assertFalse(troubled(pattern))
