"""A token's limit holds across processes that share one database file."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from llmproxy.model import Project, Token
from tests.support.spending import spend_in_processes
from tests.unit.store.contract import Calendar, new_store


class TwoProcessesTests(TestCase):
    async def test_exactly_as_many_as_allowed(self) -> None:
        """Two daemons on one SQLite file, 160 requests at once, 100 allowed: exactly 100 are."""
        url = f"sqlite:///{Path(self.mktemp()).absolute()}/llmproxy.db"
        store = new_store(url, Calendar())
        await store.open()
        self.addCleanup(store.close)
        project = await store.create_project(Project("", "Team"))
        token, secret = await store.create_token(Token("", project.id, max_requests=100))
        allowed = await deferToThread(spend_in_processes, url, secret, 2, 80)
        self.assertEqual(sum(allowed), 100)
        self.assertTrue(all(allowed), allowed)
        self.assertEqual((await store.get_token(token.id)).request_count, 100)
