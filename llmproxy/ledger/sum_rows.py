"""Rows of the ledger and of its sums, as statements take them fastest."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

from sqlalchemy import Connection, Table

from llmproxy.ledger.usage_queries import ATTRIBUTED_KEY_COLUMNS, KEY_COLUMNS, PROJECT_KEY_COLUMNS, SUM_COLUMNS
from llmproxy.store.tables import attributed_usage, project_usage, usage

ROWS_PER_STATEMENT = (250, 50, 10, 1)  # rows; SQLite takes 32,766 values with one statement

INTO_USAGE = f"INSERT INTO {usage.name} ({', '.join((*KEY_COLUMNS, *SUM_COLUMNS))})"
INTO_PROJECT_USAGE = f"INSERT INTO {project_usage.name} ({', '.join((*PROJECT_KEY_COLUMNS, *SUM_COLUMNS))})"
INTO_ATTRIBUTED_USAGE = f"INSERT INTO {attributed_usage.name} ({', '.join((*ATTRIBUTED_KEY_COLUMNS, *SUM_COLUMNS))})"
_TOKEN = KEY_COLUMNS.index("token_id")


def write(connection: Connection, into: str, width: int, rows: Sequence[tuple[Any, ...]], end: str = "") -> None:
    """Insert rows, many with one statement.

    A statement for each would let go of the interpreter and wait for it again as often, which under load takes longer
    than all else; and these few statements are always the same, so that a driver need not read them again.
    """
    place = "?" if connection.dialect.paramstyle == "qmark" else "%s"
    done = 0
    for many in ROWS_PER_STATEMENT:
        while len(rows) - done >= many:
            flat = tuple(chain.from_iterable(rows[done : done + many]))
            connection.exec_driver_sql(f"{into} VALUES {_places(place, width, many)} {end}", flat)
            done += many


@lru_cache(32)
def _places(place: str, width: int, many: int) -> str:
    """The places of the values of so many rows in a statement."""
    return ",".join([f"({','.join([place] * width)})"] * many)


def add_sums(connection: Connection, sums: Sequence[tuple[Any, ...]]) -> None:
    write(connection, INTO_USAGE, len(KEY_COLUMNS) + len(SUM_COLUMNS), sums, upsert_clause(usage))
    of_projects = without_tokens(sums)
    width = len(PROJECT_KEY_COLUMNS) + len(SUM_COLUMNS)
    write(connection, INTO_PROJECT_USAGE, width, of_projects, upsert_clause(project_usage))


def add_attributed(connection: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
    width = len(ATTRIBUTED_KEY_COLUMNS) + len(SUM_COLUMNS)
    write(connection, INTO_ATTRIBUTED_USAGE, width, rows, upsert_clause(attributed_usage))


def without_tokens(sums: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return merge([row[:_TOKEN] + row[_TOKEN + 1 :] for row in sums], len(PROJECT_KEY_COLUMNS))


def upsert_clause(table: Table) -> str:
    """What follows the values where they are to be added to a row that is there, for SQLite and PostgreSQL alike."""
    keys = ", ".join(column.name for column in table.primary_key)
    added = ", ".join(f"{name} = {table.name}.{name} + excluded.{name}" for name in SUM_COLUMNS)
    return f"ON CONFLICT ({keys}) DO UPDATE SET {added}"


def merge(rows: Sequence[tuple[Any, ...]], keys: int = len(KEY_COLUMNS)) -> list[tuple[Any, ...]]:
    """One row for each key: PostgreSQL refuses to add to a row twice with one statement."""
    sums: dict[tuple[str, ...], list[Any]] = {}
    for row in rows:
        known = sums.setdefault(tuple(row[:keys]), [0] * len(SUM_COLUMNS))
        for at, value in enumerate(row[keys:]):
            known[at] += value
    return [(*key, *values) for key, values in sorted(sums.items())]
