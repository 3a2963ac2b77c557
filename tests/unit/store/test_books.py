"""The ledger's tables on SQLite."""

from __future__ import annotations

from sqlalchemy.dialects import mysql
from twisted.trial.unittest import SynchronousTestCase, TestCase

from llmproxy.store.books import SUMS, adding
from tests.unit.store.books import BooksContract


class SQLiteBooksTests(BooksContract, TestCase):
    def url(self) -> str:
        return f"sqlite:///{self.mktemp()}/llmproxy.db"


class MySQLTests(SynchronousTestCase):
    def test_sums_are_added(self) -> None:
        """In MySQL's own words; a server is not asked here."""
        text = str(adding("mysql").compile(dialect=mysql.dialect()))
        self.assertIn("ON DUPLICATE KEY UPDATE", text)
        for name in SUMS:
            self.assertIn(f"{name} = (usage_by_period.{name} + VALUES({name}))", text)
