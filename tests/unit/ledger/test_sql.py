"""The ledger's tables on SQLite."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase, TestCase

from llmproxy.ledger.sql import SUMS, adding
from tests.unit.store.books import BooksContract


class SQLiteBooksTests(BooksContract, TestCase):
    def url(self) -> str:
        return f"sqlite:///{self.mktemp()}/llmproxy.db"


class MySQLTests(SynchronousTestCase):
    def test_sums_are_added(self) -> None:
        """In MySQL's own words; a server is not asked here."""
        said = adding("mysql")
        self.assertTrue(said.startswith("ON DUPLICATE KEY UPDATE requests = requests + VALUES(requests), "), said)
        self.assertEqual(said.count("VALUES("), len(SUMS))
