"""The ledger's tables on a real PostgreSQL server."""

from __future__ import annotations

import pytest

from tests.integration.test_postgres_store import WithServer
from tests.unit.store.archives import ArchiveContract
from tests.unit.store.books import BooksContract
from tests.unit.store.upgrades import UpgradeContract


@pytest.mark.long("6 s: the contract of the books on PostgreSQL, as on SQLite")
class PostgresBooksTests(BooksContract, WithServer):
    pass


class PostgresArchiveTests(ArchiveContract, WithServer):
    pass


class PostgresUpgradeTests(UpgradeContract, WithServer):
    def empty_url(self) -> str:
        return self.server.url()
