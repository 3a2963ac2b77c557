"""What the store promises of management keys and of creations, on any database."""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.internet.defer import Deferred

from llmproxy.base.audit_chain import ChainReport
from llmproxy.errors import Invalid, NotFound, TokenInactive, TokenNotFound
from llmproxy.errors.management import IdempotencyInProgress, IdempotencyKeyReused
from llmproxy.management_key import ManagementKey
from llmproxy.model import AuditEntry, PageRequest
from llmproxy.observability.audit import entry_text
from llmproxy.sealing import Sealer, TokenHasher
from llmproxy.store.admin_sessions import AdminSession, add_session, list_sessions
from llmproxy.store.audit_log import AuditFilter, AuditTable, verify_table
from llmproxy.store.creations import KEEP_SECONDS, MAX_OPEN_SECONDS, CreationTable
from llmproxy.store.management_keys import USE_INTERVAL_SECONDS, ManagementKeyTable
from llmproxy.store.revoked_subjects import RevokedSubjectTable, SubjectRevocation
from llmproxy.store.store import Store
from tests.unit.store.contract import Calendar


class ManagementKeyContract:
    """To be mixed in where C{store} is open and C{now} is its calendar."""

    store: Store
    now: Calendar
    assertEqual: Any
    assertFailure: Any
    assertTrue: Any

    def keys(self) -> ManagementKeyTable:
        return ManagementKeyTable(self.store, TokenHasher(b"k" * 32), self.now, lambda size: next(_RANDOM)[:size])

    async def test_revoked_subjects(self) -> None:
        """Refused are all tokens, or those from before an instant; the last one counts; sessions end with it."""
        subjects, heard = RevokedSubjectTable(self.store, self.now), []
        self.store.watch(heard.append)
        for name, principal in (("oidc:1:ada", "{}"), ("oidc:1:bob", "{}"), ("key:1", None)):
            session = AdminSession(name, name, None, "", name, 50.0, 50.0, 50.0, "", "", principal)
            await self.store.write(partial(add_session, session=session))
        await subjects.check("oidc:1:ada", None)
        await subjects.revoke(SubjectRevocation("oidc:1:ada", 40.0))
        await subjects.check("oidc:1:ada", 40.0)
        for issued in (39.9, None):
            await self.assertFailure(subjects.check("oidc:1:ada", issued), TokenInactive)
        self.assertEqual(len(await self.store.read(list_sessions)), 3)  # it began later
        revoked = await subjects.revoke(SubjectRevocation("oidc:1:ada", reason="left"))
        await self.assertFailure(subjects.check("oidc:1:ada", 1e10), TokenInactive)
        await subjects.check("oidc:1:bob", 1.0)
        await subjects.revoke_all_of("key:1")
        self.assertEqual({each.id for each in await self.store.read(list_sessions)}, {"oidc:1:bob", "key:1"})
        self.assertEqual(heard, ["", "", ""])
        page = await subjects.page(PageRequest(1, 0, ""))
        self.assertEqual((page.items, page.total), ([revoked], 2))
        rest = await subjects.page(PageRequest(1, 0, page.next_cursor))
        self.assertEqual([each.id for each in rest.items], ["key:1"])
        self.assertEqual(await subjects.restore("oidc:1:ada"), revoked)
        await subjects.check("oidc:1:ada", 1.0)
        await self.assertFailure(subjects.restore("oidc:1:ada"), NotFound)

    async def test_management_keys(self) -> None:
        """Issued, found by what was shown once, used to the minute, listed, revoked for good."""
        keys = self.keys()
        lead, secret = await keys.create_key(ManagementKey("", "Lead", "operator", ("p1", "p2")))
        admin, other = await keys.create_key(ManagementKey("", "Admin", "admin"))
        self.assertEqual(
            (lead.role, lead.projects, lead.active, admin.projects), ("operator", ("p1", "p2"), True, None)
        )
        self.assertTrue(secret.startswith(lead.prefix) and secret != other)
        self.assertEqual(await keys.validate_key(secret), lead)
        used = await self.used(keys, lead.id, None)
        await keys.validate_key(secret)
        self.assertEqual((await keys.get_key(lead.id)).last_used_at, used)
        self.now.now += USE_INTERVAL_SECONDS
        await keys.validate_key(secret)
        self.assertTrue(await self.used(keys, lead.id, used) > used)
        first = await keys.key_page(PageRequest(1))
        second = await keys.key_page(PageRequest(1, cursor=first.next_cursor))
        self.assertEqual([key.id for key in first.items + second.items], [lead.id, admin.id])
        self.assertEqual((first.total, second.next_cursor), (2, ""))
        since = (await keys.revoke_key(lead.id)).deactivated_at
        self.assertEqual((await keys.revoke_key(lead.id)).deactivated_at, since)
        await self.assertFailure(keys.validate_key(secret), TokenInactive)
        await self.assertFailure(keys.validate_key(secret[:-2] + "xy"), TokenNotFound)
        await self.assertFailure(keys.get_key("nobody"), NotFound)
        await self.assertFailure(keys.revoke_key("nobody"), NotFound)
        await self.assertFailure(keys.key_page(PageRequest(cursor="x")), Invalid)

    def creations(self, key: bytes = b"s") -> CreationTable:
        return CreationTable(self.store, Sealer(key * 32), self.now)

    async def test_creations(self) -> None:
        """Answered once for a day: while it is being made, with another request, after a crash, with a new key."""
        creations, name, other = self.creations(), "n" * 64, "o" * 64
        self.assertEqual(await creations.begin(name, "f"), None)
        await self.assertFailure(creations.begin(name, "f"), IdempotencyInProgress)
        await self.assertFailure(creations.begin(name, "g"), IdempotencyKeyReused)
        await creations.finish(name, "the answer")
        await creations.release(name)
        self.assertEqual(await creations.begin(name, "f"), "the answer")
        await self.assertFailure(creations.begin(name, "g"), IdempotencyKeyReused)
        await self.assertFailure(self.creations(b"t").begin(name, "f"), IdempotencyKeyReused)
        self.assertEqual(await creations.begin(other, "f"), None)
        await creations.release(other)
        self.assertEqual(await creations.begin(other, "f"), None)
        self.now.now += MAX_OPEN_SECONDS
        self.assertEqual(await creations.begin(other, "f"), None)
        self.now.now += KEEP_SECONDS
        self.assertEqual(await creations.begin(name, "g"), None)

    async def test_audit_log(self) -> None:
        """Entries of two processes make one chain; they are filtered, searched; old ones leave it, and it says so."""
        one, two = (AuditTable(self.store, b"a" * 32, self.now) for _ in range(2))
        await one.append([self.entry("key.create"), self.entry("key.revoke", actor="key:1", project_id="p1")])
        await two.append([self.entry("token.create", details={"name": "50% Laptop"}, actor="x" * 300)])
        every = await one.page(AuditFilter(), PageRequest())
        self.assertEqual((every.items[0]["seq"], every.items[0]["action"]), (3, "token.create"))
        for wanted, found in (
            (AuditFilter(action="key.create"), [1]),
            (AuditFilter(actor="key:1"), [2]),
            (AuditFilter(("p1", "p2")), [2]),
            (AuditFilter(()), []),
            (AuditFilter(search="50% lap"), [3]),
            (AuditFilter(since=self.now.now - 1, until=self.now.now + 1), [3, 2, 1]),
            (AuditFilter(until=self.now.now - 1), []),
        ):
            page = await one.page(wanted, PageRequest())
            self.assertEqual(([each["seq"] for each in page.items], page.total), (found, len(found)), wanted)
        first = await one.page(AuditFilter(), PageRequest(2))
        second = await one.page(AuditFilter(), PageRequest(2, cursor=first.next_cursor))
        self.assertEqual(([each["seq"] for each in second.items], second.total, second.next_cursor), ([1], None, ""))
        await self.assertFailure(one.page(AuditFilter(), PageRequest(cursor="x")), Invalid)
        again = [self.entry("key.create"), self.entry("key.list")]
        await two.append(again, again=True)
        await one.append(again, again=True)
        self.assertEqual((await self.verified()).entries, 4)
        self.now.now += 1000
        await one.append([self.entry("late")])
        self.assertEqual(await one.purge(self.now.now - 500), 4)
        self.assertEqual(await two.purge(self.now.now - 500), 0)
        report = await self.verified()
        self.assertEqual((report.problem, report.entries, report.last.seq), ("", 2, 6))

    def entry(self, action: str, **more: Any) -> tuple[float, str]:
        return self.now.now, entry_text(AuditEntry(self.now.now, action, **{"actor": "management", **more}))

    async def verified(self) -> ChainReport:
        return await self.store.read(lambda connection: verify_table(connection, b"a" * 32))

    async def used(self, keys: ManagementKeyTable, key_id: str, before: float | None) -> float:
        """When it was used last, once that is written down."""
        from twisted.internet import reactor
        from twisted.internet.task import deferLater

        for _ in range(2000):
            at = (await keys.get_key(key_id)).last_used_at
            if at != before and at is not None:
                return at
            waited: Deferred[None] = deferLater(reactor, 0.01)  # type: ignore[arg-type]
            await waited
        raise AssertionError("The use was not written down.")


def _numbers() -> Any:
    number = 0
    while True:
        number += 1
        yield number.to_bytes(32, "little")


_RANDOM = _numbers()
