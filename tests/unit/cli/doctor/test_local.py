"""What C{llmproxy doctor} sees on this machine."""

from __future__ import annotations

import sqlite3
import tempfile
import unittest
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from llmproxy.cli.doctor.findings import Finding
from llmproxy.cli.doctor.local import clock_finding, local_findings
from llmproxy.config.load import parse
from tests.support.databases import migrated_sqlite
from tests.support.small_disk import fill, small_disk

SETTINGS = """\
apis: {{openai: {{base_url: "http://127.0.0.1:1", allowed_endpoints: [/v1/models]}}}}
state_dir: {home}/state
store: {{url: "sqlite:///{home}/llmproxy.db"}}
audit: {{file: {home}/audit.jsonl}}
"""
KEY = {"LLMPROXY_ENCRYPTION_KEY": "an encryption key, long enough"}


class LocalTests(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.home = Path(folder.name)

    def look(self, environ: Mapping[str, str] = KEY, further: str = "") -> dict[str, Finding]:
        settings = parse(SETTINGS.format(home=self.home) + further, "a.yaml", environ)
        return {each.subject: each for each in local_findings(settings, environ, lambda: 0.0)[0]}

    def test_nothing_is_made(self) -> None:
        """Before the first start all is well, and stays as it is."""
        found = self.look({})
        self.assertEqual({each.state for each in found.values()} - {"warning"}, {"ok"})
        self.assertEqual(list(self.home.iterdir()), [])
        self.assertIn("will be made", found["store"].detail)

    def test_database(self) -> None:
        """One that is there is written to, and nothing of it is left."""
        migrated_sqlite(self.home / "llmproxy.db")
        for number in (None, 7):
            with closing(sqlite3.connect(self.home / "llmproxy.db")) as connection, connection:
                if number:
                    connection.execute("INSERT INTO epochs (name, number) VALUES ('health', 7)")
                before = list(connection.iterdump())
            self.assertIn("It takes writes", self.look()["store"].detail)
            with closing(sqlite3.connect(self.home / "llmproxy.db")) as connection:
                self.assertEqual(list(connection.iterdump()), before)

    def test_full_disk(self) -> None:
        """What cannot be committed is no good store, though every statement before that succeeds."""
        with small_disk(self.home / "disk", "2m"):
            url = migrated_sqlite(self.home / "disk" / "llmproxy.db")
            with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as daemon:
                daemon.execute(
                    "SELECT count(*) FROM epochs"
                ).fetchall()  # the files beside are there, as while one runs
                fill(self.home / "disk")
                found = self.look({**KEY, "LLMPROXY_STORE_URL": url})["store"]
        self.assertEqual((found.state, found.detail), ("failed", "It cannot be used: disk full."))

    def test_out_of_reach(self) -> None:
        """What cannot even be seen, such as in another user's directory, is told as that."""
        long = "x" * 300
        found = self.look({**KEY, "LLMPROXY_STATE_DIR": long, "LLMPROXY_STORE_URL": f"sqlite:///{long}/a.db"})
        for subject in ("state_dir", "management token", "store"):
            self.assertEqual((found[subject].state, found[subject].detail[-20:]), ("failed", " File name too long."))

    def test_options_of_the_url(self) -> None:
        for url in ("postgresql://h/db?port=x", "postgresql://h:1/db?host=a&host=b&port=x"):
            found = self.look({**KEY, "LLMPROXY_STORE_URL": url})["store"]
            self.assertEqual((found.state, found.advice), ("failed", "Correct store.url, or install what it needs."))

    def test_not_a_database(self) -> None:
        (self.home / "llmproxy.db").write_text("This is no database at all, but a letter to somebody." * 100)
        found = self.look()["store"]
        self.assertEqual(found.state, "failed")
        self.assertIn("llmproxy.db", found.advice)

    def test_the_database_of_another_program(self) -> None:
        with closing(sqlite3.connect(self.home / "llmproxy.db")) as database:
            database.execute("CREATE TABLE customers (a)")
        before = (self.home / "llmproxy.db").read_bytes()
        found = self.look()["store"]
        self.assertEqual(found.state, "failed")
        self.assertIn("a database of another program", found.detail)
        self.assertEqual((self.home / "llmproxy.db").read_bytes(), before)

    def test_no_database_server(self) -> None:
        """Where there is none it says so, and where it was looked for is what is to be corrected."""
        for url, detail, advice in (
            ("postgresql://a:b@127.0.0.1:1/c", "connection refused", "Nothing listens there"),
            (f"postgresql://a@/c?host={self.home}", "connection refused", "Nothing listens there"),
            ("postgresql://a:b@no-such-host.invalid/c", "host not found", "Correct the host"),
        ):
            found = self.look({**KEY, "LLMPROXY_STORE_URL": url})["store"]
            self.assertEqual((found.state, found.detail), ("failed", f"It cannot be used: {detail}."), url)
            self.assertIn(advice, found.advice)

    def test_secrets(self) -> None:
        """A file that others may read is none; a lost key is not replaced where a database needs it."""
        (self.home / "state").mkdir()
        (self.home / "state" / "management-token").write_text("a-token")
        (self.home / "state" / "management-token").chmod(0o644)
        found = self.look()["management token"]
        self.assertEqual(found.state, "failed")
        self.assertIn("Run: chmod 600", found.advice)
        self.assertNotIn("chmod", found.detail)
        self.assertNotIn("a-token", repr(found))

    def test_files(self) -> None:
        found = self.look(further="redis: {ca_file: /nowhere/ca.pem}")["files"]
        self.assertEqual(found.state, "failed")
        self.assertIn("redis.ca_file", found.detail)

    def test_descriptors(self) -> None:
        """More clients than this user may have descriptors for."""
        found = self.look(further="server: {max_connections: 2000000000}")["descriptors"]
        self.assertIn(found.state, ("warning", "ok" if found.detail == "There is no limit." else "warning"))

    def test_clock(self) -> None:
        self.assertEqual(clock_finding("clock", 4.0).state, "ok")
        self.assertIn("60 s behind", clock_finding("clock", 60.0).detail)
        self.assertIn("60 s ahead", clock_finding("clock", -60.0).detail)
