"""A database of before lines were narrow, with some in it, and what they are in the view in the table's place."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, column, insert, select, table
from sqlalchemy.engine import URL

from llmproxy.model import LedgerLine
from llmproxy.store import baseline
from llmproxy.store.engines import upgrade_engine
from llmproxy.store.migrate import SCRIPTS, prepare

BEFORE = "0023"


def wide_lines(count: int) -> list[LedgerLine]:
    """All that a line may be, over and over."""
    odd = [
        LedgerLine("run-00000000aa-result", 1.5, request_id="é", basis="exact"),
        LedgerLine(
            "of another version", 2.5, attribution='{"user":["ada","claimed"]}', attempted="0/0:429", attempts=2
        ),
    ]
    return odd + [
        LedgerLine(
            f"run{number % 3}-{number:010x}", number / 7, 0.25, f"r{number}", "p", f"t{number % 5}", "openai", "/v1/*",
            "m", "m-1", "exact", "exact", "", 200, None if number % 2 else 200, number % 4 == 0, number, 1, 2, 3, 4,
            None if number % 3 else 0.1 * number, 5, 2**40, "", 1,
        )
        for number in range(count)
    ]  # fmt: skip


def older_scripts(revision: str, scratch: Path) -> Path:
    """The upgrades up to this one, as an older version has them."""
    scripts = scratch / "older"
    shutil.copytree(SCRIPTS, scripts, ignore=shutil.ignore_patterns("__pycache__", baseline.NAME))
    for script in (scripts / "versions").glob("v*_*.py"):
        if script.name[1:5] > revision:
            script.unlink()
    return scripts


def make_wide(url: URL, lines: list[LedgerLine], scratch: Path) -> None:
    """A database at the revision of before, with these lines."""
    prepare(url, lambda connection: None, scripts=older_scripts(BEFORE, scratch))
    with _connection(url) as connection:
        into = table("ledger", *map(column, LedgerLine._fields))
        connection.execute(insert(into), [line._asdict() for line in lines])


def viewed(url: URL) -> list[tuple[Any, ...]]:
    """What is in the ledger, by id."""
    with _connection(url) as connection:
        view = table("ledger", *map(column, LedgerLine._fields))
        return sorted(tuple(row) for row in connection.execute(select(view)))


@contextmanager
def _connection(url: URL) -> Iterator[Connection]:
    engine = upgrade_engine(url, 5.0)
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()
