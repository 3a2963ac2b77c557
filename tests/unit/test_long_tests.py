"""What is marked C{long} is left out at a desk: few tests are, each says why, each feature has a test there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, cast
from unittest import TestCase

import pytest

from tests.support.long_tests import LEAST_SECONDS, OPTION, REASON, leave_out, summary
from tests.unit.config.test_every_setting import SHOWN_BY

TESTS = Path(__file__).parents[1]
AT_MOST = 0.1  # of all tests


MARK = "pytest.mark.long"
_TEST = re.compile(r"^ *(?:async )?def test", re.MULTILINE)


class Written(NamedTuple):
    """A test as it stands in a file."""

    name: str  # path::Class::test
    is_long: bool  # all of it; one of whose parameters some are is run without those


def _has_mark(decorators: list[ast.expr]) -> bool:
    return any(ast.unparse(each).startswith(MARK) for each in decorators)


def _within(body: list[ast.stmt], place: str, is_long: bool) -> Iterator[Written]:
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield from _within(node.body, f"{place}::{node.name}", is_long or _has_mark(node.decorator_list))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test"):
            yield Written(f"{place}::{node.name}", is_long or _has_mark(node.decorator_list))


@cache
def sources() -> dict[str, str]:
    return {path.relative_to(TESTS).as_posix(): path.read_text("utf-8") for path in sorted(TESTS.rglob("test_*.py"))}


@cache
def modules() -> dict[str, ast.Module]:
    """Those with a mark: to parse all of them takes seconds."""
    return {path: ast.parse(source) for path, source in sources().items() if MARK in source}


@cache
def written() -> list[Written]:
    """All tests of files with a mark, a parametrized one counted once."""
    return [test for path, module in modules().items() for test in _within(module.body, path, False)]


def count() -> int:
    """Of all tests, as L{written} counts them."""
    return sum(len(_TEST.findall(source)) for source in sources().values())


def long() -> set[str]:
    return {test.name for test in written() if test.is_long}


class RuleTests(TestCase):
    def test_each_says_what_it_takes_and_shows(self) -> None:
        self.assertTrue(long())
        for path, module in modules().items():
            calls = {id(node.func): node for node in ast.walk(module) if isinstance(node, ast.Call)}
            for node in ast.walk(module):
                if isinstance(node, ast.Attribute) and node.attr == "long" and ast.unparse(node) == MARK:
                    with self.subTest(path, line=node.lineno):
                        self.assertIn(id(node), calls, "a reason is missing")
                        (reason,) = calls[id(node)].args
                        found = REASON.fullmatch(ast.literal_eval(reason))
                        assert found is not None, f"“12 s: what it shows” is wanted, not {ast.unparse(reason)}"
                        self.assertGreaterEqual(int(found[1]), LEAST_SECONDS)

    def test_they_are_few(self) -> None:
        self.assertLess(len(long()), AT_MOST * count())

    def test_no_setting_is_shown_by_them_alone(self) -> None:
        self.assertEqual(long() & set(SHOWN_BY.values()), set())

    def test_their_files_have_others(self) -> None:
        """What a file is about has a test at a desk."""
        others = {test.name.partition("::")[0] for test in written() if not test.is_long}
        self.assertEqual({name.partition("::")[0] for name in long()} - others, set())
        marked = [node for module in modules().values() for node in module.body if isinstance(node, ast.Assign)]
        self.assertEqual(
            [each for each in marked if ast.unparse(each).startswith("pytestmark") and MARK in ast.unparse(each)], []
        )


class _Hook:
    def __init__(self) -> None:
        self.deselected: list[Any] = []

    def pytest_deselected(self, items: list[Any]) -> None:
        self.deselected += items


class _Config:
    """As much of C{pytest.Config} as is used."""

    def __init__(self, without_long: bool) -> None:
        self.stash = pytest.Stash()
        self.hook = _Hook()
        self._without_long = without_long

    def getoption(self, name: str) -> bool:
        assert name == OPTION
        return self._without_long


class _Item:
    def __init__(self, *marks: str) -> None:
        self._marks = marks

    def get_closest_marker(self, name: str) -> object:
        return name if name in self._marks else None


class LeavingOutTests(TestCase):
    def setUp(self) -> None:
        self.items = [_Item(), _Item("long"), _Item("alone"), _Item("long", "alone")]

    def left(self, config: _Config) -> list[_Item]:
        items = list(self.items)
        leave_out(cast(pytest.Config, config), cast("list[pytest.Item]", items))
        return items

    def test_without_the_option_all_are_run(self) -> None:
        config = _Config(without_long=False)
        self.assertEqual(self.left(config), self.items)
        self.assertEqual(summary(cast(pytest.Config, config)), "")

    def test_what_is_left_out_is_said(self) -> None:
        config = _Config(without_long=True)
        self.assertEqual(self.left(config), [self.items[0], self.items[2]])
        self.assertEqual(config.hook.deselected, [self.items[1], self.items[3]])
        self.assertRegex(summary(cast(pytest.Config, config)), "^2 long tests were left out: `make test-all`")
