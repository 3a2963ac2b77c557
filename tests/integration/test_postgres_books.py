"""The ledger's tables on a real PostgreSQL server."""

from __future__ import annotations

from tests.integration.test_postgres_store import WithServer
from tests.unit.store.archives import ArchiveContract
from tests.unit.store.books import BooksContract


class PostgresBooksTests(BooksContract, WithServer):
    pass


class PostgresArchiveTests(ArchiveContract, WithServer):
    pass
