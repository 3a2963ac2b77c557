"""A SQLite database that was removed or replaced is told from the one that was opened; a lost key is not made anew."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import TestCase

from twisted.trial.unittest import TestCase as TrialCase

from llmproxy.errors import StoreUnavailable
from llmproxy.model import Project
from llmproxy.store.canary import refuse_new_key
from llmproxy.store.errors import KeyMissing
from llmproxy.store.sqlite_file import APPLICATION_ID, FileIdentity
from tests.unit.store.contract import Calendar, new_store


class IdentityTests(TestCase):
    def setUp(self) -> None:
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "a.db"
        self.path.write_bytes(b"x")
        self.identity = FileIdentity(self.path)

    def test_what_has_become_of_it(self) -> None:
        self.assertEqual(self.identity.problem(), "")
        self.path.write_bytes(b"more")
        self.assertEqual(self.identity.problem(), "")
        aside = self.path.with_name("aside")
        self.path.rename(aside)
        self.assertEqual(self.identity.problem(), "file was removed")
        shutil.copy(aside, self.path)
        self.assertEqual(self.identity.problem(), "file was replaced")
        os.replace(aside, self.path)
        self.assertEqual(self.identity.problem(), "")


class LostFileTests(TrialCase):
    async def test_nothing_is_written_into_the_void(self) -> None:
        """Also not by a transaction during which the file is lost: its caller is not told that it was kept."""
        path = Path(self.mktemp()).absolute() / "llmproxy.db"
        store = new_store(f"sqlite:///{path}", Calendar())
        await store.open()
        self.addCleanup(store.close)
        await store.create_project(Project("", "Kept"))
        with closing(sqlite3.connect(path)) as database:
            self.assertEqual(database.execute("PRAGMA application_id").fetchone(), (APPLICATION_ID,))
        aside = path.with_name("aside")
        await self.assertFailure(store.write(lambda connection: path.rename(aside)), StoreUnavailable)
        for work in (store.list_projects(), store.create_project(Project("", "Lost")), store.ping()):
            error = await self.assertFailure(work, StoreUnavailable)
            self.assertEqual(error.reason, "file was removed")
        aside.rename(path)
        self.assertEqual([project.name for project in await store.list_projects()], ["Kept"])


class LostKeyTests(TrialCase):
    async def test_a_database_that_needs_one(self) -> None:
        """A new key is refused where the database has been used, and where it does not say; not for a new one."""
        path = Path(self.mktemp()).absolute() / "llmproxy.db"
        url, key = f"sqlite:///{path}", Path("key")
        refuse_new_key(key, url)
        self.assertFalse(path.exists())
        store = new_store(url, Calendar())
        await store.open()
        await store.close()
        with self.assertRaisesRegex(KeyMissing, "has keys that were sealed with it"):
            refuse_new_key(key, url)
        path.write_bytes(b"no database at all" * 100)
        with self.assertRaisesRegex(KeyMissing, "could not be opened: file is not a database. So it does not say"):
            refuse_new_key(key, url)

    def test_a_database_that_is_away(self) -> None:
        """What the driver says comes first, without the passwords; the key is only why nothing was made."""
        url = "postgresql://u:hunter2@127.0.0.1:1/db?password=hunter3"
        with self.assertRaises(KeyMissing) as raised:
            refuse_new_key(Path("key"), url)
        said = str(raised.exception)
        self.assertRegex(
            said, r"^The store postgresql\+psycopg://\*\*\*@127.0.0.1:1/db\?password=\*\*\* could not be opened: "
        )
        self.assertIn("Connection refused", said.partition("So it does not say")[0])
        self.assertNotIn("hunter", said)
