"""What upgrades of a database that is in use must do, on every database."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, Engine, MetaData, Table, insert, select

from llmproxy.store.engines import parse_store_url, upgrade_engine
from llmproxy.store.migrate import prepare
from llmproxy.store.sqlite_file import VERSION_TABLE
from llmproxy.store.tables import metadata
from tests.support.wide_ledger import older_scripts
from tests.unit.store.archives import ROWS, value_of

OLD = "0020"
MOVED = ("ledger",)  # into other tables; its own tests look at every value


def reflected(connection: Connection) -> dict[str, Table]:
    """The tables that are there, those that others refer to first; JSON and truth as ours have it."""
    there = MetaData()
    there.reflect(connection)
    for table in there.tables.values():
        ours = metadata.tables.get(table.name)
        for column in table.columns:
            if ours is not None and column.name in ours.c:
                column.type = ours.c[column.name].type
    return {table.name: table for table in there.sorted_tables if table.name != VERSION_TABLE}


class UpgradeContract:
    """Mixed into a trial C{TestCase} that says where a database is in which nothing is."""

    assertEqual: Any
    assertGreater: Any
    assertTrue: Any
    addCleanup: Any
    empty_url: Callable[[], str]

    def setUp(self) -> None:
        self.address = parse_store_url(self.empty_url())

    def engine(self) -> Engine:
        engine = upgrade_engine(self.address, 10)
        self.addCleanup(engine.dispose)
        return engine

    def rows(self, connection: Connection, table: Table, names: list[str]) -> list[Mapping[str, Any]]:
        found = connection.execute(select(*(table.c[name] for name in names)))
        return [dict(zip(names, row, strict=True)) for row in found]

    def test_with_rows_in_every_table(self) -> None:
        """They are all there, and the tables are those that the code expects."""
        with TemporaryDirectory() as folder:
            prepare(self.address, lambda connection: None, scripts=older_scripts(OLD, Path(folder)))
        engine, before = self.engine(), {}
        with engine.begin() as connection:
            old = reflected(connection)
            for table in reversed(old.values()):
                connection.execute(table.delete())
            for name, table in old.items():
                rows = [{column.name: value_of(column, at) for column in table.columns} for at in range(ROWS)]
                connection.execute(insert(table), rows)
                before[name] = self.rows(connection, table, list(table.columns.keys()))
        self.assertGreater(len(before), 15)
        prepare(self.address, lambda connection: None)
        with engine.connect() as connection:
            context = MigrationContext.configure(
                connection, opts={"compare_type": True, "version_table": VERSION_TABLE}
            )
            self.assertEqual(compare_metadata(context, metadata), [])
            new = reflected(connection)
            for name in sorted(set(before) - set(MOVED)):
                after = self.rows(connection, new[name], list(old[name].columns.keys()))
                self.assertEqual(sorted(after, key=str), sorted(before[name], key=str), name)
            ids = connection.exec_driver_sql("SELECT id FROM ledger").scalars()
            self.assertEqual(sorted(ids), sorted(row["id"] for row in before["ledger"]))
