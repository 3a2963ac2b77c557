"""The ledger's tables on SQLite."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.support.databases import migrated_sqlite
from tests.unit.store.books import BooksContract


class SQLiteBooksTests(BooksContract, TestCase):
    def url(self) -> str:
        return migrated_sqlite(Path(self.mktemp()).absolute() / "llmproxy.db")
