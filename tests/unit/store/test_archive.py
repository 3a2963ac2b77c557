"""Everything in a SQLite database as lines, and back again."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.support.databases import migrated_sqlite
from tests.unit.store.archives import ArchiveContract


class SQLiteArchiveTests(ArchiveContract, TestCase):
    def url(self) -> str:
        return migrated_sqlite(Path(self.mktemp()).absolute() / "llmproxy.db")
