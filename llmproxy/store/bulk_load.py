"""Many rows into tables, as fast as each database takes them. All of it blocks, in the transaction of its caller.

PostgreSQL has COPY for that (its manual, section 14.4, "Populating a Database"), of which psycopg writes the rows;
SQLite takes rows fastest one by one, by one prepared statement. Either makes an index faster of all rows than one by
one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sqlalchemy import JSON, Connection, Table, delete, inspect
from sqlalchemy.exc import DBAPIError

MAINTENANCE_MEMORY = "256MB"  # PostgreSQL's, while it makes an index

Rows = Iterable[Sequence[list[Any]]]


def delete_all(connection: Connection, tables: Sequence[Table]) -> None:
    """Empty these tables, which are given with those before that others refer to."""
    if connection.dialect.name == "postgresql":
        names = ", ".join(connection.dialect.identifier_preparer.format_table(table) for table in tables)
        connection.exec_driver_sql(f"TRUNCATE {names}")
        return
    for table in reversed(tables):
        connection.execute(delete(table))


def load(connection: Connection, table: Table, parts: Rows, added: Callable[[int], object]) -> None:
    """Insert rows, each with a value for every column in their order, as SQLAlchemy would take it.

    @param added: Called with how many rows have come, again and again.
    """
    there = {index["name"] for index in inspect(connection).get_indexes(table.name)}
    indexes = [index for index in sorted(table.indexes, key=lambda index: str(index.name)) if index.name in there]
    for index in indexes:
        index.drop(connection)
    into = _copy if connection.dialect.name == "postgresql" else _insert
    into(connection, table, _as_text(table, parts), added)
    for index in indexes:
        index.create(connection)
    if connection.dialect.name == "postgresql":  # else reports read all until autovacuum comes by
        connection.exec_driver_sql(f"ANALYZE {connection.dialect.identifier_preparer.format_table(table)}")


def _as_text(table: Table, parts: Rows) -> Rows:
    """The same rows, JSON as the text that both databases keep."""
    places = [at for at, column in enumerate(table.columns) if isinstance(column.type, JSON)]
    for rows in parts:
        for row in rows if places else ():
            for at in places:
                row[at] = None if row[at] is None else json.dumps(row[at])
        yield rows


def _copy(connection: Connection, table: Table, parts: Rows, added: Callable[[int], object]) -> None:
    quote = connection.dialect.identifier_preparer
    names = ", ".join(quote.format_column(column) for column in table.columns)
    connection.exec_driver_sql(f"SET LOCAL maintenance_work_mem = '{MAINTENANCE_MEMORY}'")
    driver: Any = connection.connection.driver_connection
    statement = f"COPY {quote.format_table(table)} ({names}) FROM STDIN"
    errors: Any = connection.dialect.loaded_dbapi
    try:
        with driver.cursor() as cursor, cursor.copy(statement) as copy:
            for rows in parts:
                for row in rows:
                    copy.write_row(row)
                added(len(rows))
    except errors.Error as e:
        raise DBAPIError.instance(statement, None, e, errors.Error) from e


def _insert(connection: Connection, table: Table, parts: Rows, added: Callable[[int], object]) -> None:
    quote = connection.dialect.identifier_preparer
    names = ", ".join(quote.format_column(column) for column in table.columns)
    places = ", ".join("?" * len(table.columns))
    for rows in parts:
        connection.exec_driver_sql(
            f"INSERT INTO {quote.format_table(table)} ({names}) VALUES ({places})", [tuple(row) for row in rows]
        )
        added(len(rows))
