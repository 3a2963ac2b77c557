"""The store on a real PostgreSQL server."""

from __future__ import annotations

import threading
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from llmproxy.errors import StoreUnavailable
from llmproxy.model import Project, Token
from llmproxy.store.engines import parse_store_url
from llmproxy.store.errors import DatabaseTooNew, UpgradeInProgress, WrongKey
from llmproxy.store.migrate import prepare, server_lock
from llmproxy.store.sqlite_file import VERSION_TABLE
from tests.support.postgres import PostgreSQL
from tests.support.spending import spend_in_processes
from tests.support.wide_ledger import make_wide, viewed, wide_lines
from tests.unit.store.contract import Calendar, StoreContract, new_store
from tests.unit.store.groups import GroupContract
from tests.unit.store.management_keys import ManagementKeyContract


class WithServer(TestCase):
    """One server for all tests, one database for each test."""

    server: PostgreSQL

    @pytest.fixture(autouse=True)
    def _on_server(self, postgres: PostgreSQL) -> None:
        self.server = postgres

    def url(self) -> str:
        return self.server.migrated()


class PostgresStoreTests(StoreContract, ManagementKeyContract, GroupContract, WithServer):
    pass


class PostgresTests(WithServer):
    def setUp(self) -> None:
        self.address = self.server.url()  # nothing is in it

    async def opened(self, **more: Any) -> Any:
        store = new_store(self.address, Calendar(), **more)
        await store.open()
        self.addCleanup(store.close)
        return store

    @pytest.mark.long("2 s: two processes on one database, as with SQLite")
    async def test_two_processes(self) -> None:
        """Exactly as many requests as allowed, however many processes and threads ask."""
        store = await self.opened()
        project = await store.create_project(Project("", "Team"))
        _, secret = await store.create_token(Token("", project.id, max_requests=100))
        self.assertEqual(sum(await deferToThread(spend_in_processes, self.address, secret, 2, 80)), 100)

    def test_lines_become_narrow(self) -> None:
        """Each is in the view as it was in the table."""
        url, lines = parse_store_url(self.address), wide_lines(5020)
        with TemporaryDirectory() as scratch:
            make_wide(url, lines, Path(scratch))
        prepare(url, lambda connection: None)
        self.assertEqual(viewed(url), sorted(tuple(line) for line in lines))

    async def test_many_first_starts_at_once(self) -> None:
        """They take turns; one makes the tables, the others find them."""
        failures: list[BaseException] = []

        def start() -> None:
            try:
                prepare(parse_store_url(self.address), lambda connection: None)
            except BaseException as e:
                failures.append(e)

        threads = [threading.Thread(target=start) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            await deferToThread(thread.join)
        self.assertEqual(failures, [])

    async def test_another_upgrade_under_way(self) -> None:
        engine = create_engine(parse_store_url(self.address))
        self.addCleanup(engine.dispose)
        with engine.begin() as connection:
            server_lock(connection, 1)
            starting = deferToThread(prepare, parse_store_url(self.address), lambda connection: None, wait=0.1)
            await self.assertFailure(starting, UpgradeInProgress)

    async def test_a_newer_database(self) -> None:
        store = await self.opened()
        await store.close()
        engine = create_engine(parse_store_url(self.address))
        self.addCleanup(engine.dispose)
        with engine.begin() as connection:
            connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
        await self.assertFailure(store.open(), DatabaseTooNew)

    async def test_another_encryption_key(self) -> None:
        await self.opened()
        await self.assertFailure(new_store(self.address, Calendar(), master="another key").open(), WrongKey)

    async def test_the_server_goes_and_comes_back(self) -> None:
        """While it is away a token is not unknown but cannot be checked; afterwards everything works by itself."""
        store = await self.opened()
        project = await store.create_project(Project("", "Team"))
        _, secret = await store.create_token(Token("", project.id))
        await store.validate_token(secret)
        with self.server.stopped():
            await self.assertFailure(store.validate_token(secret), StoreUnavailable)
            await self.assertFailure(store.validate_token_with_tracking(secret), StoreUnavailable)
            await self.assertFailure(store.ping(), StoreUnavailable)
        await store.ping()
        await store.validate_token_with_tracking(secret)

    async def test_a_server_that_is_not_there(self) -> None:
        store = new_store("postgresql://llmproxy:hunter2@127.0.0.1:1/none", Calendar())
        refusal = await self.assertFailure(store.open(), StoreUnavailable)
        self.assertNotIn("hunter2", str(refusal))

    async def test_a_statement_that_takes_too_long(self) -> None:
        """The server is told to give up too, so that a hanging statement does not keep a thread."""
        store = await self.opened(timeout=1.0, threads=1)
        engine = create_engine(parse_store_url(self.address))
        self.addCleanup(engine.dispose)
        with engine.begin() as connection:
            connection.execute(text("LOCK TABLE projects"))
            await self.assertFailure(store.list_projects(), StoreUnavailable)
            await store.ping()
