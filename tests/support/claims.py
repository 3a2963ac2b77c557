"""What a page of the documentation claims, and the tests that show it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

TESTS = Path(__file__).parents[1]
DOCS = TESTS.parent / "docs"
NAMED = re.compile(r"`((?:unit|journey|integration)/[a-z0-9_/]+\.py)::(test_[a-z0-9_]+)`")


def missing_tests(named: Iterable[tuple[str, str]]) -> list[str]:
    """Those that do not exist, of tests by their file (below C{tests}) and name."""
    return [f"{path}::{name}" for path, name in named if not _exists(TESTS / path, name)]


def rows(section: str) -> list[str]:
    """The rows of the tables in a section, without their heads."""
    return [line for line in section.splitlines() if line.startswith("|")][2:]


def section(page: str, title: str) -> str:
    """What stands under this heading."""
    return page.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def _exists(file: Path, name: str) -> bool:
    return file.is_file() and bool(re.search(rf"^ *(?:async )?def {name}\(", file.read_text("utf-8"), re.M))
