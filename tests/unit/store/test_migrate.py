"""A database is brought to the code's schema once, safely, or the start is refused."""

from __future__ import annotations

import fcntl
import shutil
import sqlite3
import stat
import tempfile
import threading
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any
from unittest import TestCase
from unittest.mock import patch

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError
from twisted.logger import LogEvent, globalLogPublisher

from llmproxy.ledger.line_rows import LineRows
from llmproxy.store import baseline
from llmproxy.store.canary import refuse_new_key
from llmproxy.store.engines import parse_store_url
from llmproxy.store.errors import DatabaseTooNew, InvalidStoreURL, UpgradeInProgress
from llmproxy.store.migrate import SCRIPTS, newest_revision, prepare
from llmproxy.store.sqlite_file import APPLICATION_ID, VERSION_TABLE, mark_as_ours
from llmproxy.store.tables import metadata
from tests.support.wide_ledger import make_wide, viewed, wide_lines
from tests.unit.store.upgrades import UpgradeContract

NEXT = """
import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = "{before}"


def upgrade() -> None:
    {steps}
"""


def ignore(connection: Any) -> None:
    """Nothing to check."""


class MigrateTests(TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.home = Path(directory.name)
        self.path = self.home / "100%" / "llmproxy.db"
        self.url = parse_store_url(f"sqlite:///{self.path}")

    def sql(self, statement: str, path: Path | None = None) -> list[Any]:
        with closing(sqlite3.connect(path or self.path)) as connection, connection:
            return connection.execute(statement).fetchall()

    def newer(self, steps: str) -> Path:
        """The scripts of a later version, with one more step."""
        scripts = self.home / "scripts%"
        shutil.copytree(SCRIPTS, scripts, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
        before = self.sql(f"SELECT version_num FROM {VERSION_TABLE}")[0][0]
        (scripts / "versions" / "v9999_next.py").write_text(NEXT.format(before=before, steps=steps))
        return scripts

    def steps(self, last: str = "9999") -> Path:
        """The scripts up to this revision, without their outcome."""
        scripts = self.home / "steps"
        shutil.copytree(SCRIPTS, scripts, ignore=shutil.ignore_patterns("__pycache__", baseline.NAME))
        for each in (scripts / "versions").glob("v*_*.py"):
            if each.name[1:5] > last:
                each.unlink()
        return scripts

    def old_database(self) -> None:
        prepare(self.url, ignore)
        self.sql("INSERT INTO projects (id, name, active, created_at, updated_at) VALUES ('p', 'Team', 1, 0, 0)")
        columns = "id, project_id, hash, prefix, name, active, request_count, apis, endpoints, models, ips, created_at"
        values = "'t', 'p', 'h', 'sk', '', 1, 0, '[]', '[]', '[]', '[]', 0"
        self.sql(f"INSERT INTO tokens ({columns}) VALUES ({values})")

    def test_the_newest_revision_is_in_the_name_of_the_last_script(self) -> None:
        """A start sees without Alembic that nothing is to be upgraded."""
        self.assertEqual(newest_revision(SCRIPTS), ScriptDirectory(SCRIPTS).get_current_head())

    def test_the_names_of_scripts_say_their_revisions(self) -> None:
        for script in ScriptDirectory(SCRIPTS).walk_revisions():
            with self.subTest(script.revision):
                self.assertTrue(Path(script.path).name.startswith(f"v{script.revision}_"))

    def test_a_new_database(self) -> None:
        prepare(self.url, ignore)
        names = {name for (name,) in self.sql("SELECT name FROM sqlite_master WHERE type = 'table'")}
        self.assertEqual(names, {*metadata.tables, VERSION_TABLE})

    def test_the_steps_lead_to_the_tables(self) -> None:
        """What the upgrades make is what the code expects, column by column."""
        prepare(self.url, ignore, scripts=self.steps())
        engine = create_engine(self.url)
        self.addCleanup(engine.dispose)
        with engine.connect() as connection:
            context = MigrationContext.configure(
                connection, opts={"compare_type": True, "version_table": VERSION_TABLE}
            )
            self.assertEqual(compare_metadata(context, metadata), [])

    def test_a_new_database_is_what_the_steps_lead_to(self) -> None:
        """To the letter, rows included: C{make schema} writes the script that makes it."""
        prepare(self.url, ignore)
        self.assertEqual(baseline.script(self.path), (SCRIPTS / baseline.NAME).read_text())
        (revision,) = self.sql(f"SELECT version_num FROM {VERSION_TABLE}")[0]
        other = self.home / "steps.db"
        prepare(parse_store_url(f"sqlite:///{other}"), ignore, scripts=self.steps(revision))
        self.assertEqual(baseline.script(other), baseline.script(self.path))

    def test_a_new_database_where_there_are_further_steps(self) -> None:
        """They are taken from there, and there is nothing to keep a copy of."""
        self.old_database()
        scripts = self.newer('op.add_column("projects", sa.Column("colour", sa.Text))')
        other = self.home / "other" / "new.db"
        prepare(parse_store_url(f"sqlite:///{other}"), ignore, scripts=scripts)
        self.assertEqual(self.sql("SELECT colour FROM projects", other), [])
        self.assertEqual([each.name for each in other.parent.glob("*before*")], [])

    def test_tables_of_our_own_without_a_revision(self) -> None:
        """A database that somebody has begun to make by hand is no new one."""
        prepare(self.url, ignore)
        self.sql(f"DROP TABLE {VERSION_TABLE}")
        with self.assertRaisesRegex(OperationalError, "already exists"):
            prepare(self.url, ignore)

    def test_of_another_program(self) -> None:
        """Not a byte of it is changed, whether it marks its databases or not; nor is a key made for it."""
        for name, mark in (("customers", 0), ("projects", 0), ("customers", 7)):
            file = self.home / f"{name}{mark}.db"
            self.sql(f"CREATE TABLE {name} (a)", file)
            self.sql(f"PRAGMA application_id = {mark}", file)
            before, beside = file.read_bytes(), set(self.home.iterdir())
            url = parse_store_url(f"sqlite:///{file}")
            for use in (lambda: prepare(url, ignore), lambda: refuse_new_key(self.home / "key", str(url))):  # noqa: B023
                with self.subTest(file.name), self.assertRaisesRegex(InvalidStoreURL, "of another program"):
                    use()
            self.assertEqual((file.read_bytes(), set(self.home.iterdir())), (before, beside))

    def test_it_becomes_another_programs_meanwhile(self) -> None:
        """Between the first look and the transaction."""
        self.path.parent.mkdir()
        self.sql("CREATE TABLE customers (a)")
        engine = create_engine(self.url)
        self.addCleanup(engine.dispose)
        with engine.begin() as connection, self.assertRaisesRegex(InvalidStoreURL, "another program"):
            mark_as_ours(connection, self.path)
        self.assertEqual(self.sql("PRAGMA application_id"), [(0,)])

    def test_nothing_in_it(self) -> None:
        """A file of somebody else who has left nothing in it, but what SQLite keeps for itself, is a new database."""
        self.path.parent.mkdir()
        self.sql("CREATE TABLE a (id INTEGER PRIMARY KEY AUTOINCREMENT)")
        self.sql("DROP TABLE a")
        prepare(self.url, ignore)
        self.assertEqual(self.sql(f"SELECT * FROM {VERSION_TABLE}"), [(newest_revision(SCRIPTS),)])

    def test_of_a_version_that_did_not_mark_it(self) -> None:
        self.old_database()
        self.sql("PRAGMA application_id = 0")
        prepare(self.url, ignore)
        self.assertEqual(self.sql("PRAGMA application_id"), [(APPLICATION_ID,)])

    def test_again(self) -> None:
        """A second start changes nothing and copies nothing."""
        self.old_database()
        prepare(self.url, ignore)
        self.assertEqual(self.sql("SELECT id FROM projects"), [("p",)])
        self.assertEqual([each.name for each in self.path.parent.glob("*before*")], [])

    def test_an_upgrade_keeps_a_copy(self) -> None:
        self.old_database()
        prepare(self.url, ignore, scripts=self.newer('op.add_column("projects", sa.Column("colour", sa.Text))'))
        self.sql("UPDATE projects SET colour = 'red'")
        kept = self.path.with_name("llmproxy.db.before-9999")
        self.assertEqual(self.sql("SELECT id, name, active FROM projects", kept), [("p", "Team", 1)])
        self.assertEqual(stat.S_IMODE(kept.stat().st_mode), 0o600)
        self.assertEqual(list(self.path.parent.glob("*.part")), [])

    def test_a_rebuilt_table_keeps_what_refers_to_it(self) -> None:
        """SQLite changes a column by dropping the table; the tokens of a project must survive that."""
        self.old_database()
        steps = 'with op.batch_alter_table("projects") as t: t.alter_column("name", new_column_name="title")'
        prepare(self.url, ignore, scripts=self.newer(steps))
        self.assertEqual(self.sql("SELECT id FROM tokens"), [("t",)])
        self.assertEqual(self.sql("SELECT title FROM projects"), [("Team",)])

    def test_lines_become_narrow(self) -> None:
        """Each is in the view as it was in the table, and those of the next start too; the log says how far it is."""
        lines = wide_lines(5020)  # more than one slice
        make_wide(self.url, lines, self.home)
        logged: list[LogEvent] = []
        globalLogPublisher.addObserver(logged.append)
        self.addCleanup(globalLogPublisher.removeObserver, logged.append)
        with patch("time.monotonic", side_effect=count(0.0, 6.0)):
            prepare(self.url, ignore)
        self.assertEqual(viewed(self.url), sorted(tuple(line) for line in lines))
        self.assertEqual(self.sql("SELECT count(*) FROM ledger_runs"), [(5,)])
        self.assertLess(self.sql("SELECT count(*) FROM ledger_kinds")[0][0], 30)
        self.assertEqual([(e["moved"], e["total"]) for e in logged if "moved" in e], [(5000, 5022), (5022, 5022)])
        rows = LineRows().with_lines([line._replace(id=f"next-{n:010x}") for n, line in enumerate(lines[:100])])
        known = {each for (each,) in self.sql("SELECT id FROM ledger_kinds")}
        self.assertLessEqual(set(rows.kinds), known)  # whoever entered the first has the same numbers

    def test_a_failed_upgrade_changes_nothing(self) -> None:
        self.old_database()
        steps = 'op.execute("DROP TABLE canaries"); op.execute("DELETE FROM tokens"); op.execute("nonsense")'
        with self.assertRaises(OperationalError):
            prepare(self.url, ignore, scripts=self.newer(steps))
        self.assertEqual(self.sql("SELECT count(*) FROM canaries"), [(0,)])
        self.assertEqual(self.sql("SELECT id FROM tokens"), [("t",)])
        prepare(self.url, ignore)

    def test_an_upgrade_that_loses_references(self) -> None:
        self.old_database()
        with self.assertRaisesRegex(RuntimeError, "nothing was changed"):
            prepare(self.url, ignore, scripts=self.newer('op.execute("DELETE FROM projects")'))
        self.assertEqual(self.sql("SELECT id FROM projects"), [("p",)])

    def test_a_failed_check_changes_nothing(self) -> None:
        def refuse(connection: Any) -> None:
            raise ZeroDivisionError

        with self.assertRaises(ZeroDivisionError):
            prepare(self.url, refuse)
        self.assertEqual(self.sql("SELECT * FROM sqlite_master"), [])

    def test_a_newer_database(self) -> None:
        """An old program does not touch what it does not understand."""
        self.old_database()
        prepare(self.url, ignore, scripts=self.newer("pass"))
        with self.assertRaisesRegex(DatabaseTooNew, "9999"):
            prepare(self.url, ignore)
        self.assertEqual(self.sql(f"SELECT * FROM {VERSION_TABLE}"), [("9999",)])

    def test_another_upgrade_under_way(self) -> None:
        prepare(self.url, ignore)
        with open(self.path.with_name("llmproxy.db.lock")) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for wait in (0.0, 0.1):
                with self.assertRaisesRegex(UpgradeInProgress, "upgrading"):
                    prepare(self.url, ignore, wait=wait)
        prepare(self.url, ignore, wait=0.0)

    def test_many_first_starts_at_once(self) -> None:
        failures: list[BaseException] = []

        def start() -> None:
            try:
                prepare(self.url, ignore)
            except BaseException as e:
                failures.append(e)

        threads = [threading.Thread(target=start) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])
        self.assertEqual(len(self.sql(f"SELECT * FROM {VERSION_TABLE}")), 1)


class SQLiteUpgradeTests(UpgradeContract, TestCase):
    def empty_url(self) -> str:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        return f"sqlite:///{directory.name}/llmproxy.db"
