"""What moving all that is stored must do, on every database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Connection,
    Double,
    Engine,
    Integer,
    LargeBinary,
    Table,
    insert,
    inspect,
    select,
)

from llmproxy.store.archive import (
    TABLES,
    NotAsArchived,
    count,
    line_parts,
    replace_all,
    snapshot,
    table_in_use,
    table_sum,
)
from llmproxy.store.engines import parse_store_url, upgrade_engine

ROWS = 3
TEXTS = ("plain", "tab\t line\n return\r back\\slash \\. \\N ' \"", "Nº 😀 \u2028 \u0001")
NUMBERS = (0.1 + 0.2, 1e-300, 1e16)
TREES = ([], {"b": [1, 2.5, None, True], "a": {"ü": "\\"}}, ["x", "tab\t"])
BYTES = (b"", bytes(range(256)), b"\\x00\n")


def value_of(column: Any, at: int) -> Any:
    """One that is not like others of this type."""
    kind, foreign = column.type, bool(column.foreign_keys)
    if column.nullable and at == 0:
        return None
    if isinstance(kind, Boolean):
        return bool(at % 2)
    if isinstance(kind, BigInteger) and not column.primary_key:
        return (0, 2**63 - 1, -(2**63))[at]
    if isinstance(kind, Integer):
        return at
    if isinstance(kind, Double):
        return NUMBERS[at]
    if isinstance(kind, LargeBinary):
        return BYTES[at]
    if isinstance(kind, JSON):
        return TREES[at]
    if column.unique or column.primary_key or foreign:
        return f"id {at}"
    return TEXTS[at][: kind.length] if kind.length else TEXTS[at]


def rows_of(table: Table) -> list[dict[str, Any]]:
    return [{column.name: value_of(column, at) for column in table.columns} for at in range(ROWS)]


def fill(connection: Connection) -> None:
    """Rows in every table, whatever a start has put there."""
    for table in reversed(TABLES.values()):
        connection.execute(table.delete())
    for table in TABLES.values():
        connection.execute(insert(table), rows_of(table))


class ArchiveContract:
    """Mixed into a trial C{TestCase} that says where a database with tables is."""

    assertEqual: Any
    assertTrue: Any
    assertNotEqual: Any
    assertRaises: Any
    addCleanup: Any
    url: Callable[[], str]

    def engine(self) -> Engine:
        engine = upgrade_engine(parse_store_url(self.url()), 10)
        self.addCleanup(engine.dispose)
        return engine

    def setUp(self) -> None:
        self.source = self.engine()
        with self.source.begin() as connection:
            fill(connection)

    def archive(self, engine: Engine) -> dict[str, list[bytes]]:
        with snapshot(engine) as connection:
            return {name: [line for part in line_parts(connection, t) for line in part] for name, t in TABLES.items()}

    def sources(self, lines: dict[str, list[bytes]]) -> dict[str, Callable[[], Iterator[bytes]]]:
        return {name: lambda some=some: iter(some) for name, some in lines.items()}  # type: ignore[misc]

    def test_every_kind_of_value(self) -> None:
        """Each is what it was, in every table; counted and summed alike."""
        lines, target, added = self.archive(self.source), self.engine(), []
        with target.begin() as connection:
            replace_all(connection, self.sources(lines), added.append)
        self.assertEqual(sum(added), ROWS * len(TABLES))
        for name, table in TABLES.items():
            names = list(table.columns.keys())
            with self.source.connect() as before, target.connect() as after:
                wanted, found = table_sum(before, table), table_sum(after, table)
                rows = [dict(zip(names, row, strict=True)) for row in after.execute(select(table))]
            self.assertEqual((wanted.rows, wanted.digest), (found.rows, found.digest), name)
            self.assertEqual(found.rows, ROWS, name)
            for row in rows_of(table):
                self.assertTrue(row in rows, (name, row, rows))

    def test_in_the_place_of_what_is_there(self) -> None:
        """All goes, also where rows refer to others; indexes are there as before."""
        with self.source.begin() as connection:
            before = {name: inspect(connection).get_indexes(name) for name in TABLES}
            lines = {name: some[:1] for name, some in self.archive(self.source).items()}
        with self.source.begin() as connection:
            replace_all(connection, self.sources(lines), int)
        with self.source.connect() as connection:
            self.assertEqual({count(connection, table) for table in TABLES.values()}, {1})
            after = {name: inspect(connection).get_indexes(name) for name in TABLES}
        for name, indexes in before.items():
            self.assertEqual(_by_name(after[name]), _by_name(indexes), name)

    def test_a_change_shows(self) -> None:
        """A value, a row more, and one less: each is another sum."""
        tokens = TABLES["tokens"]
        with self.source.connect() as connection:
            first = table_sum(connection, tokens).digest
            connection.execute(tokens.update().where(tokens.c.id == "id 1").values(request_count=7))
            second = table_sum(connection, tokens).digest
            connection.execute(tokens.delete().where(tokens.c.id == "id 1"))
            third = table_sum(connection, tokens).digest
        self.assertEqual(len({first, second, third}), 3)

    def test_lines_that_are_none(self) -> None:
        lines = self.archive(self.source)
        for wrong in (b"[]", b"{}", b"[1", b"\xff", b'["x"]'):
            with self.source.connect() as connection:
                broken = self.sources({**lines, "canaries": [wrong]})
                self.assertRaises(NotAsArchived, replace_all, connection, broken, int)

    def test_used(self) -> None:
        """Tables that a start fills do not count."""
        with self.source.connect() as connection:
            self.assertEqual(table_in_use(connection), "projects")
        with self.engine().connect() as connection:
            self.assertEqual(table_in_use(connection), "")


def _by_name(indexes: Any) -> list[Any]:
    return sorted((index["name"], index["column_names"], bool(index["unique"])) for index in indexes)
