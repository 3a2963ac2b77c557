"""Everything in a database as lines of text, whichever database it is, and back again. All of it blocks.

A table is a line for each row: a JSON array of its values in the order of its columns, bytes as base64. What a table
holds is known by the number of its rows and by the sum of their SHA-256, which does not depend on an order: databases
sort text differently.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from typing import Any

import msgspec
from sqlalchemy import Connection, Engine, LargeBinary, Table, func, select

from llmproxy.store.bulk_load import delete_all, load
from llmproxy.store.engines import autocommit
from llmproxy.store.tables import metadata

ROWS_AT_ONCE = 1000
TABLES = {table.name: table for table in metadata.sorted_tables}
OF_USERS = (  # what a database has that somebody has used; a start alone fills others
    *("projects", "project_groups", "tokens", "management_keys", "ledger_lines", "usage_by_period"),
    *("usage_of_projects", "audit_log"),
)


class NotAsArchived(Exception):
    """What is there is not what was archived."""


@dataclass(slots=True)
class TableSum:
    """How many rows, and the sum of their hashes."""

    rows: int = 0
    total: int = 0

    def add(self, lines: Iterable[bytes]) -> None:
        """These rows too."""
        hashes = [int.from_bytes(sha256(line).digest(), "big") for line in lines]
        self.rows += len(hashes)
        self.total = (self.total + sum(hashes)) % 2**256

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


def line_parts(connection: Connection, table: Table) -> Iterator[list[bytes]]:
    """The table, a line for each row, without line ends; so many at once."""
    encode = msgspec.json.Encoder(order="deterministic").encode
    result = connection.execute(select(table), execution_options={"yield_per": ROWS_AT_ONCE})
    for rows in result.partitions(ROWS_AT_ONCE):
        yield [encode(tuple(row)) for row in rows]


def replace_all(
    connection: Connection, tables: Mapping[str, Callable[[], Iterable[bytes]]], added: Callable[[int], object]
) -> None:
    """Put these lines in the place of all that the database holds, in its transaction.

    @param tables: Every table by its name; C{added}: called with how many rows have come, again and again.
    """
    delete_all(connection, list(TABLES.values()))
    for name, table in TABLES.items():
        load(connection, table, _parts(table, tables[name]()), added)


def table_sum(connection: Connection, table: Table, summed: Callable[[int], object] = int) -> TableSum:
    """What is in a table now.

    @param summed: Called with how many rows have been read, again and again.
    """
    found = TableSum()
    for lines in line_parts(connection, table):
        found.add(lines)
        summed(len(lines))
    return found


def table_in_use(connection: Connection) -> str:
    """The name of a table that has rows which somebody has made; C{""} where nobody has used this database yet."""
    return next((name for name in OF_USERS if connection.execute(select(TABLES[name]).limit(1)).first()), "")


def _parts(table: Table, lines: Iterable[bytes]) -> Iterator[list[list[Any]]]:
    """The rows of these lines; L{NotAsArchived} where one is no row of this table."""
    decode = msgspec.json.Decoder(list[Any]).decode
    binary = [at for at, column in enumerate(table.columns) if isinstance(column.type, LargeBinary)]
    width, left = len(table.columns), iter(lines)
    while some := list(islice(left, ROWS_AT_ONCE)):
        try:
            rows = [decode(line) for line in some]
            for row in rows if binary else ():
                for at in binary:
                    row[at] = None if row[at] is None else b64decode(row[at])
        except (msgspec.DecodeError, ValueError, TypeError, IndexError) as e:
            raise NotAsArchived(f"{table.name} has a line that is no row: {e}") from e
        if any(len(row) != width for row in rows):
            raise NotAsArchived(f"{table.name} has a line that does not have its {width} columns.")
        yield rows
