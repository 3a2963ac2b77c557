"""The ledger's tables on SQLite."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from tests.unit.store.books import BooksContract


class SQLiteBooksTests(BooksContract, TestCase):
    def url(self) -> str:
        return f"sqlite:///{self.mktemp()}/llmproxy.db"
