"""A store that ends with its process."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import TestCase

from llmproxy import Project, Store, Token
from llmproxy.base.coroutines import deferred
from tests.unit.store.books import BooksContract
from tests.unit.store.contract import StoreContract
from tests.unit.store.groups import GroupContract
from tests.unit.store.management_keys import ManagementKeyContract


class MemoryTests(TestCase):
    @deferred
    async def test_all_it_takes(self) -> None:
        """An address, and nothing else; two of them share nothing."""
        first, second = Store(":memory:"), Store("sqlite:///:memory:")
        for store in (first, second):
            await store.open()
            self.addCleanup(store.close)
        await first.create_project(Project(id="proj-1", name="Test", api_keys={"openai": "sk-1"}))
        _, token = await first.create_token(Token(id="", project_id="proj-1", name="ci", max_requests=2))
        for _ in range(2):
            await first.validate_token_with_tracking(token)
        self.assertEqual(await first.get_api_key_for_project("proj-1", "openai"), "sk-1")
        self.assertEqual([p.id for p in await first.list_projects()], ["proj-1"])
        self.assertEqual(await second.list_projects(), [])

    @deferred
    async def test_nothing_is_left(self) -> None:
        """Its folder goes when it is closed, or with the process."""
        store = Store(":memory:")
        await store.open()
        folder = Path(store._database.url.database or "").parent
        self.assertTrue(folder.is_dir())
        await store.close()
        self.assertFalse(folder.exists())

    def test_what_outlasts_it_needs_keys(self) -> None:
        with self.assertRaisesRegex(ValueError, "sealer"):
            Store("sqlite:///x.db")


class MemoryStoreTests(StoreContract, ManagementKeyContract, GroupContract, TestCase):
    """It does what every store does; further ones of the contract open the same database."""

    async def setUp(self) -> None:
        await super().setUp()
        self.address = f"sqlite:///{self.store._database.url.database}"

    def url(self) -> str:
        return ":memory:"


class MemoryBooksTests(BooksContract, TestCase):
    def url(self) -> str:
        return ":memory:"
