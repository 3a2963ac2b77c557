"""The store on SQLite: what it promises, and what it does when something is wrong."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import event
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from llmproxy.errors import Invalid, StoreUnavailable, TokenNotFound
from llmproxy.model import Project, Token
from llmproxy.sealing import Sealer, derive
from llmproxy.store.errors import InvalidStoreURL, StartupError, WrongKey
from tests.support.databases import migrated_sqlite
from tests.unit.store.contract import MASTER, OPENAI_KEY, Calendar, StoreContract, new_store
from tests.unit.store.groups import GroupContract
from tests.unit.store.management_keys import ManagementKeyContract


class SQLiteStoreTests(StoreContract, ManagementKeyContract, GroupContract, TestCase):
    def url(self) -> str:
        return migrated_sqlite(Path(self.mktemp()).absolute() / "llmproxy.db")


class OnDisk(TestCase):
    """With a store in a directory of its own."""

    async def setUp(self) -> None:
        self.now = Calendar()
        self.path = Path(self.mktemp()).absolute() / "data" / "llmproxy.db"
        self.store = self.another()
        await self.store.open()
        self.addCleanup(self.store.close)

    def another(self, **more: Any) -> Any:
        return new_store(f"sqlite:///{self.path}", self.now, **more)

    def sql(self, statement: str) -> list[Any]:
        with closing(sqlite3.connect(self.path)) as connection, connection:
            return connection.execute(statement).fetchall()


class SlowSealer(Sealer):
    """Seals when a test opens the gate; the thread that wants it done waits there, in the midst of its transaction."""

    def __init__(self, key: bytes) -> None:
        super().__init__(key)
        self.begun = threading.Event()
        self.gate = threading.Event()

    def seal(self, text: str, *context: str) -> bytes:
        self.begun.set()
        self.gate.wait(10)
        return super().seal(text, *context)


class AtRestTests(OnDisk):
    async def test_no_secret_in_any_file(self) -> None:
        """Neither a provider's key nor a token stands in the database, its journal or beside it."""
        project = await self.store.create_project(Project("", "Team", api_keys={"openai": OPENAI_KEY}))
        _, secret = await self.store.create_token(Token("", project.id))
        for file in self.path.parent.iterdir():
            content = file.read_bytes()
            self.assertNotIn(OPENAI_KEY[4:-4].encode(), content)
            self.assertNotIn(secret[10:].encode(), content)

    async def test_only_its_owner_may_read(self) -> None:
        await self.store.create_project(Project("", "Team"))
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in self.path.parent.iterdir()}
        self.assertIn("llmproxy.db-wal", modes)
        self.assertEqual(set(modes.values()), {0o600}, modes)
        self.assertEqual(stat.S_IMODE(self.path.parent.stat().st_mode), 0o700)

    async def test_it_is_set_up_for_many_readers(self) -> None:
        self.assertEqual(self.sql("PRAGMA journal_mode"), [("wal",)])

    async def test_a_key_moved_to_another_project(self) -> None:
        """Someone who can write to the database still cannot use one project's key as another's."""
        owner = await self.store.create_project(Project("", "Owner", api_keys={"openai": OPENAI_KEY}))
        thief = await self.store.create_project(Project("", "Thief"))
        self.sql(f"UPDATE provider_keys SET project_id = '{thief.id}' WHERE project_id = '{owner.id}'")
        failure = await self.assertFailure(self.store.get_api_key_for_project(thief.id, "openai"), Exception)
        self.assertEqual(failure.code, "upstream_auth_error")


class LookingTests(OnDisk):
    async def test_changes_are_heard_of_while_all_else_waits(self) -> None:
        """However many look-ups are queued, what has been revoked is known in time."""
        busy = self.another(threads=1)
        await busy.open()
        self.addCleanup(busy.close)
        gate = threading.Event()
        waiting = [busy.read(lambda _: gate.wait(10)) for _ in range(20)]
        project = await self.store.create_project(Project("", "Team"))
        self.assertEqual((await busy.changes(0)).projects, (project.id,))
        self.assertFalse(any(each.called for each in waiting))
        gate.set()
        for each in waiting:
            await each


class OpeningTests(OnDisk):
    async def test_everything_is_there_again(self) -> None:
        project = await self.store.create_project(Project("", "Team", api_keys={"openai": OPENAI_KEY}))
        _, secret = await self.store.create_token(Token("", project.id))
        await self.store.close()
        again = self.another()
        await again.open()
        self.addCleanup(again.close)
        self.assertEqual((await again.validate_token(secret)).project_id, project.id)
        self.assertEqual(await again.get_api_key_for_project(project.id), OPENAI_KEY)

    async def test_another_encryption_key(self) -> None:
        """The start is refused with what to do, instead of every token being unknown later."""
        other = self.another(master="another key")
        refusal = await self.assertFailure(other.open(), WrongKey)
        self.assertIn("ENCRYPTION_KEY", str(refusal))
        await self.assertFailure(other.ping(), StoreUnavailable)

    async def test_not_open(self) -> None:
        closed = self.another()
        for asked in (closed.ping(), closed.validate_token("sk-lp-" + "A" * 43), closed.list_projects()):
            await self.assertFailure(asked, StoreUnavailable)
        await closed.close()

    async def test_closed(self) -> None:
        await self.store.close()
        await self.assertFailure(self.store.ping(), StoreUnavailable)
        await self.store.close()

    async def test_bad_addresses(self) -> None:
        for url in ("", "nonsense", "sqlite:///file:x", "oracle://x/y", "sqlite+aiosqlite:///x.db"):
            with self.assertRaises(InvalidStoreURL):
                new_store(url, self.now)

    async def test_an_address_never_repeats_a_password(self) -> None:
        with self.assertRaises(InvalidStoreURL) as caught:
            new_store("oracle://me:hunter2@host/db", self.now)
        self.assertNotIn("hunter2", str(caught.exception))

    async def test_a_directory_that_cannot_be_made(self) -> None:
        self.path.with_name("file").write_text("")
        store = new_store(f"sqlite:///{self.path.with_name('file')}/llmproxy.db", self.now)
        await self.assertFailure(store.open(), StartupError)

    async def test_a_file_that_is_no_database(self) -> None:
        path = self.path.with_name("other.db")
        path.write_bytes(b"This is not a database. " * 1000)
        refusal = await self.assertFailure(new_store(f"sqlite:///{path}", self.now).open(), StoreUnavailable)
        self.assertIn("not a database", str(refusal))

    async def test_a_relative_address_stays_where_it_was(self) -> None:
        """The daemon may change its directory after the settings were read."""
        here = os.getcwd()
        store = new_store(f"sqlite:///{os.path.relpath(self.path)}", self.now)
        os.chdir("/")
        self.addCleanup(os.chdir, here)
        await store.open()
        await store.ping()
        await store.close()


class DownTests(OnDisk):
    async def test_a_broken_database_is_no_unknown_token(self) -> None:
        """The client hears 503 and tries again; a 401 would make it throw its token away."""
        _, secret = await self.store.create_token(Token("", (await self.store.create_project(Project("", "T"))).id))
        self.sql("ALTER TABLE tokens RENAME TO elsewhere")
        for asked in (
            self.store.validate_token(secret),
            self.store.validate_token_with_tracking(secret),
            self.store.get_token("x"),
            self.store.count_uses({"x": (1, 1.0)}),
            self.store.create_token(Token("", "x")),
        ):
            self.assertEqual((await self.assertFailure(asked, StoreUnavailable)).status, 503)

    async def test_a_locked_database(self) -> None:
        """A writer that cannot write in time is told so; readers are not held up, and it recovers."""
        _, secret = await self.store.create_token(Token("", (await self.store.create_project(Project("", "T"))).id))
        clock, impatient = await self.impatient()
        with self.locked():
            waiting = impatient.validate_token_with_tracking(secret)
            await impatient.validate_token(secret)
            clock.advance(4.9)
            self.assertNoResult(waiting)
            clock.advance(0.1)
            self.failureResultOf(waiting, StoreUnavailable)
        await self.store.validate_token_with_tracking(secret)

    async def test_a_change_whose_caller_gave_up(self) -> None:
        """The caller was told that the store did not answer; what others remember goes all the same."""
        project = await self.store.create_project(Project("", "T"))
        sealer = SlowSealer(derive(MASTER, "seal"))
        clock, impatient = await self.impatient(sealer=sealer)
        heard: Deferred[str] = Deferred()
        impatient.watch(heard.callback)
        changing = impatient.update_project(replace(project, name="New", api_keys={"openai": OPENAI_KEY}))
        self.assertTrue(sealer.begun.wait(10))
        clock.advance(5)
        self.failureResultOf(changing, StoreUnavailable)
        self.assertNoResult(heard)
        sealer.gate.set()
        self.assertEqual(await heard, project.id)
        self.assertEqual((await self.store.get_project_by_id(project.id)).name, "New")

    async def impatient(self, **more: Any) -> tuple[Clock, Any]:
        """A store on the same file whose patience of 5 s is measured by a clock of the test's."""
        clock = Clock()
        clock.callFromThread = reactor.callFromThread  # type: ignore[attr-defined]
        store = self.another(reactor=clock, timeout=5.0, **more)
        await store.open()
        self.addCleanup(store.close)
        return clock, store

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Another process that is writing."""
        with closing(sqlite3.connect(self.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            yield
            other.execute("ROLLBACK")

    async def test_too_many_waiting(self) -> None:
        """A burst beyond the queue is refused at once instead of waiting for its timeout."""
        crowded = self.another(threads=1, waiting=2)
        await crowded.open()
        self.addCleanup(crowded.close)
        asked = [crowded.budgets_spent([]) for _ in range(10)]
        refused = [each for each in asked if each.called]
        self.assertEqual(len(refused), 7)
        for each in refused:
            await self.assertFailure(each, StoreUnavailable)
        for each in asked[:3]:
            await each
        await crowded.ping()

    async def test_the_shape_is_looked_at_first(self) -> None:
        """What cannot be a token does not reach the database."""
        await self.store.close()
        await self.assertFailure(self.store.validate_token("nonsense"), TokenNotFound)
        await self.assertFailure(self.store.validate_token("sk-lp-" + "A" * 43), StoreUnavailable)

    async def test_a_failed_change_leaves_nothing(self) -> None:
        project = await self.store.create_project(Project("", "Team", api_keys={"openai": OPENAI_KEY}))
        bad = replace(project, name="New", api_keys={"openai": "", "\ud800": "x"})
        await self.assertFailure(self.store.update_project(bad), Invalid)
        self.assertEqual(await self.store.get_project_by_id(project.id), project)

    async def test_a_listener_that_fails(self) -> None:
        """The change is made, the others hear of it, and the failure is in the log."""
        heard: list[str] = []
        self.store.watch(lambda _: 1 / 0)
        self.store.watch(heard.append)
        project = await self.store.create_project(Project("", "Team"))
        self.assertEqual(heard, [project.id])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class HealthTests(OnDisk):
    """Whether the database takes writes, and why not, is found out by writing."""

    async def no(self, reason: str) -> None:
        error = await self.assertFailure(self.store.ping(), StoreUnavailable)
        self.assertEqual((error.reason, error.status), (reason, 503))
        self.assertIn(reason, error.message)
        change = await self.assertFailure(self.store.create_project(Project("", "x" * 100_000)), StoreUnavailable)
        self.assertEqual(change.message, f"The change could not be stored. The store: {reason}. Try again.")

    def pragma(self, said: str) -> None:
        """To every connection that there is, and will be."""
        event.listen(self.store._database._engine.pool, "checkout", lambda c, *_: c.execute(f"PRAGMA {said}").close())

    async def test_read_only(self) -> None:
        self.pragma("query_only = ON")
        await self.no("read-only")

    async def test_a_full_disk(self) -> None:
        """No page more than there is: what the file system says of a full disk, SQLite says of this."""
        self.sql("CREATE TABLE filler (x)")
        pages = self.sql("PRAGMA page_count")[0][0]
        self.pragma(f"max_page_count = {pages}")
        change = await self.assertFailure(self.store.create_project(Project("", "x" * 100_000)), StoreUnavailable)
        self.assertEqual(change.reason, "disk full")

    async def test_locked(self) -> None:
        """Another process has been writing for too long; token look-ups go on."""
        _, secret = await self.store.create_token(Token("", (await self.store.create_project(Project("", "T"))).id))
        with closing(sqlite3.connect(self.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            asked = self.store.ping()
            await self.store.validate_token(secret)
            error = await self.assertFailure(asked, StoreUnavailable)
            self.assertEqual(error.reason, "locked")
            other.execute("ROLLBACK")
        await self.store.ping()

    async def test_asked_by_many(self) -> None:
        """One write for all, and none for those who ask right after."""
        await gatherResults([self.store.ping() for _ in range(50)])
        await self.store.ping()
        self.assertEqual(self.sql("SELECT number FROM epochs WHERE name = 'health'"), [(0,)])
        self.assertEqual(self.sql("SELECT number FROM epochs WHERE name = 'changes'"), [(0,)])
