"""Tests that take long and whose kind is shown by others: C{@pytest.mark.long("12 s: …")}; C{docs/development.md}.

C{make test} leaves them out at a desk and says so; CI and C{make test-all} run them.
"""

from __future__ import annotations

import re

import pytest

OPTION = "--without-long"
LEAST_SECONDS = 1  # of the processor's time, that of a test's daemons included, while others run beside it
REASON = re.compile(r"(\d+) s: \S.*")  # what a mark says: what it takes, and what it shows
_LEFT_OUT = pytest.StashKey[int]()


def add_option(parser: pytest.Parser) -> None:
    parser.addoption(OPTION, action="store_true", help="leave out the tests marked `long`, and say how many they were")


def leave_out(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of what is left by C{-m} and C{-k}."""
    if not config.getoption(OPTION):
        return
    long = [item for item in items if item.get_closest_marker("long") is not None]
    if long:
        items[:] = [item for item in items if item.get_closest_marker("long") is None]
        config.hook.pytest_deselected(items=long)
    config.stash[_LEFT_OUT] = len(long)


def summary(config: pytest.Config) -> str:
    """C{""} where none was left out."""
    count = config.stash.get(_LEFT_OUT, 0)
    return f"{count} long tests were left out: `make test-all` runs them, as CI does." if count else ""
