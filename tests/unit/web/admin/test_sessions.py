from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import TestCase

from llmproxy.web.admin import sessions as module
from llmproxy.web.admin.sessions import Sessions
from tests.support.databases import migrated_sqlite
from tests.unit.store.contract import Calendar, new_store


class SessionsTests(TestCase):
    async def setUp(self) -> None:
        self.now = 1_764_072_000.0
        self.store = new_store(migrated_sqlite(Path(self.mktemp()).absolute() / "llmproxy.db"), Calendar())
        await self.store.open()
        self.addCleanup(self.store.close)
        self.sessions = Sessions(self.store, lambda: self.now, os.urandom)

    async def test_it_is_found_by_its_secret_alone(self) -> None:
        begun = await self.sessions.begin("management", "192.0.2.1", "Firefox")
        found = await self.sessions.find(begun.secret)
        assert found is not None
        self.assertEqual((found.session, found.renewed), (begun.session, False))
        for other in ("", begun.secret[:-1], begun.session.hash, begun.session.id, "x" * 10_000):
            self.assertIsNone(await self.sessions.find(other))

    async def test_the_secret_is_not_in_the_store(self) -> None:
        begun = await self.sessions.begin("management", "", "")
        rows = await self.store.read(lambda c: c.exec_driver_sql("SELECT * FROM admin_sessions").all())
        self.assertNotIn(begun.secret, str(rows))

    async def test_it_ends(self) -> None:
        """When it was used for too long, or not for too long, or is ended."""
        idle = await self.sessions.begin("management", "", "")
        self.now += module.IDLE_SECONDS
        self.assertIsNone(await self.sessions.find(idle.secret))
        ended = await self.sessions.begin("management", "", "")
        self.assertTrue(await self.sessions.end(ended.session.id))
        self.assertFalse(await self.sessions.end(ended.session.id))
        self.assertIsNone(await self.sessions.find(ended.secret))
        used, begun = await self.sessions.begin("management", "", ""), self.now
        secret = used.secret
        while self.now < begun + module.LONGEST_SECONDS - 3600:
            self.now += 3600
            found = await self.sessions.find(secret)
            assert found is not None
            secret = found.secret
        self.now = begun + module.LONGEST_SECONDS
        self.assertIsNone(await self.sessions.find(secret))
        self.assertEqual(await self.sessions.all(), [])

    async def test_the_secret_changes(self) -> None:
        """What was under way with the one before is served; whoever comes with it later is not."""
        begun = await self.sessions.begin("management", "", "")
        self.now += module.ROTATE_SECONDS
        renewed = await self.sessions.find(begun.secret)
        assert renewed is not None
        self.assertTrue(renewed.renewed and renewed.secret != begun.secret)
        self.assertEqual(renewed.session.csrf_token, begun.session.csrf_token)
        late = await self.sessions.find(begun.secret)
        assert late is not None
        self.assertFalse(late.renewed)
        self.assertIsNotNone(await self.sessions.find(renewed.secret))
        self.now += module.GRACE_SECONDS
        self.assertIsNone(await self.sessions.find(begun.secret))
        self.assertIsNotNone(await self.sessions.find(renewed.secret))
