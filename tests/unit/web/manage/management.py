"""The management API in front of stores in memory, for tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.auth.lockout import FailedAttempts
from llmproxy.model import AuditEntry
from llmproxy.web.manage.auth import ManagementAuth
from llmproxy.web.manage.endpoint import ManagementContext
from llmproxy.web.manage.tree import Management
from llmproxy.web.root import Root
from tests.support.caches import contents
from tests.support.client import ask, ours
from tests.support.fakes import (
    MemoryAudit,
    MemoryGroups,
    MemoryKeys,
    MemorySessions,
    MemoryStore,
    MemorySubjects,
    MemoryUsage,
    NoEntries,
    idle_activity,
)
from tests.support.responses import Response

TOKEN = "management-token-for-tests"
APIS = {
    "openai": ["/v1/chat/completions", "/v1/embeddings", "/v1/models", "/v1/models/*"],
    "anthropic": ["/v1/messages"],
}
NOW = 1_794_992_800.0  # 2026-11-18T09:06:40Z


class ManagementTestCase(SynchronousTestCase):
    """Asks the management API, and knows what was stored and written down."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.store = MemoryStore(self.clock)
        self.keys = MemoryKeys(self.clock)
        self.groups = MemoryGroups(self.clock)
        self.usage = MemoryUsage()
        self.audit = MemoryAudit()
        self.cache = contents(self.clock)
        self.root = Root(manage=self.management())

    def management(self, default_api: str = "openai", identity: Any = None, **more: Any) -> Management:
        return Management(
            ManagementContext(
                projects=self.store,
                tokens=self.store,
                keys=self.keys,
                groups=self.groups,
                audit_table=NoEntries(),
                sessions=MemorySessions(),
                alerts=NoEntries(),
                subjects=MemorySubjects(),
                issuers=["https://id.example.com"],
                usage=self.usage,
                audit=self.audit,
                apis=APIS,
                default_api=default_api,
                auth=ManagementAuth(TOKEN, FailedAttempts(), self.clock, ["198.51.100.0/24"], self.keys, identity),
                clock=self.clock,
                now=self.clock.seconds,
                cache=self.cache,
                activity=idle_activity(self.clock),
                **more,
                new_id=lambda: f"proj-{len(self.store.projects) + 1}",
            )
        )

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        token: str | None = TOKEN,
        address: str = "192.0.2.1",
        fields: Mapping[str, str] | None = None,
    ) -> Response:
        credential = {} if token is None else {"Authorization": f"Bearer {token}"}
        return ask(self.root, method, path, body, {**credential, **(fields or {})}, address, ours)

    def refused(self, reply: Response, code: int, *said: str) -> None:
        """C{reply} is a refusal with this status, whose message says all of these."""
        self.assertEqual(reply.status, code, reply.body)
        for word in said:
            self.assertIn(word, reply.json["error"]["message"])

    def project(self, **body: object) -> str:
        """A new project's id."""
        reply = self.ask("POST", "/manage/projects", {"name": "Team", **body})
        self.assertEqual(reply.status, 201, reply.body)
        return str(reply.json["id"])

    def token(self, **body: object) -> str:
        """A new token's id."""
        reply = self.ask("POST", "/manage/tokens", body)
        self.assertEqual(reply.status, 201, reply.body)
        return str(reply.json["id"])

    def key(self, role: str, *projects: str) -> str:
        """A new management key."""
        body = {"name": f"{role} key", "role": role, **({"projects": list(projects)} if projects else {})}
        reply = self.ask("POST", "/manage/keys", body)
        self.assertEqual(reply.status, 201, reply.body)
        return str(reply.json["key"])

    def last(self) -> AuditEntry:
        return self.audit.entries[-1]
