"""The ledger's tables on a real PostgreSQL server."""

from __future__ import annotations

from tests.integration.test_postgres_store import WithServer
from tests.unit.store.archives import ArchiveContract
from tests.unit.store.books import BooksContract
from tests.unit.store.upgrades import UpgradeContract


class PostgresBooksTests(BooksContract, WithServer):
    pass


class PostgresArchiveTests(ArchiveContract, WithServer):
    pass


class PostgresUpgradeTests(UpgradeContract, WithServer):
    def empty_url(self) -> str:
        return self.server.url()
