"""Everything in a database as lines of text, whichever database it is, and back again. All of it blocks.

A table is a line of JSON for each row, bytes as C{{"base64": …}}. What a table holds is known by the number of its rows
and by the sum of their SHA-256, which does not depend on an order: databases sort text differently.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from typing import Any

from sqlalchemy import Connection, Engine, LargeBinary, Table, delete, func, insert, select

from llmproxy.store.engines import autocommit
from llmproxy.store.tables import metadata

ROWS_AT_ONCE = 1000
TABLES = {table.name: table for table in metadata.sorted_tables}


class NotAsArchived(Exception):
    """What is there is not what was archived."""


@dataclass(slots=True)
class TableSum:
    """How many rows, and the sum of their hashes."""

    rows: int = 0
    total: int = 0

    def add(self, line: bytes) -> None:
        self.rows += 1
        self.total = (self.total + int.from_bytes(sha256(line).digest(), "big")) % 2**256

    @property
    def digest(self) -> str:
        return f"{self.total:064x}"


@contextmanager
def snapshot(engine: Engine) -> Iterator[Connection]:
    """A connection that sees the database as it was at one moment, and holds up nobody who writes."""
    if engine.dialect.name == "sqlite":
        with autocommit(engine).connect() as connection:
            connection.exec_driver_sql("BEGIN")  # our engines begin as writers, who would keep out all others
            try:
                yield connection
            finally:
                connection.exec_driver_sql("ROLLBACK")
        return
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        yield connection


def count(connection: Connection, table: Table) -> int:
    return connection.execute(select(func.count()).select_from(table)).scalar_one()


def lines(connection: Connection, table: Table) -> Iterator[bytes]:
    """The table, a line for each row, without line ends."""
    names = [column.name for column in table.columns]
    result = connection.execution_options(yield_per=ROWS_AT_ONCE).execute(select(table))
    for row in result:
        yield _line(dict(zip(names, row, strict=True)))


def replace_all(
    connection: Connection, tables: Mapping[str, Callable[[], Iterable[bytes]]], added: Callable[[int], object]
) -> None:
    """Put these lines in the place of all that the database holds, in its transaction.

    @param tables: Every table by its name; C{added}: told how many rows have come, again and again.
    """
    for table in reversed(TABLES.values()):
        connection.execute(delete(table))
    for name, table in TABLES.items():
        binary = [column.name for column in table.columns if isinstance(column.type, LargeBinary)]
        rows = (_row(line, binary) for line in tables[name]())
        while batch := list(islice(rows, ROWS_AT_ONCE)):
            connection.execute(insert(table), batch)
            added(len(batch))


def table_sum(connection: Connection, table: Table) -> TableSum:
    """What is in a table now."""
    found = TableSum()
    for line in lines(connection, table):
        found.add(line)
    return found


def is_empty(connection: Connection) -> bool:
    """Whether nobody has used this database yet."""
    ours = ("projects", "tokens", "management_keys", "ledger_lines", "usage_by_period", "audit_log")
    return not any(connection.execute(select(TABLES[name]).limit(1)).first() for name in ours)


def _line(row: dict[str, Any]) -> bytes:
    return json.dumps(row, separators=(",", ":"), sort_keys=True, default=_bytes, ensure_ascii=False).encode(
        "utf-8", "surrogatepass"
    )


def _bytes(value: Any) -> dict[str, str]:
    if isinstance(value, bytes | bytearray | memoryview):
        return {"base64": b64encode(bytes(value)).decode()}
    raise TypeError(f"A {type(value).__name__} cannot be archived.")


def _row(line: bytes, binary: list[str]) -> dict[str, Any]:
    row: dict[str, Any] = json.loads(line.decode("utf-8", "surrogatepass"))
    for name in binary:
        if row[name] is not None:
            row[name] = b64decode(row[name]["base64"])
    return row
