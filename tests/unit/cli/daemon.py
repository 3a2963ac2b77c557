"""A management API on a real loopback socket, and the command line against it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from twisted.internet import reactor
from twisted.internet.defer import succeed
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase
from twisted.web.resource import IResource
from twisted.web.server import Site

from llmproxy.auth.lockout import FailedAttempts
from llmproxy.cli import main
from llmproxy.composition.reloading import ReloadResult
from llmproxy.web.manage.auth import ManagementAuth
from llmproxy.web.manage.endpoint import ManagementContext
from llmproxy.web.manage.tree import Management
from llmproxy.web.root import Root
from tests.support.caches import contents
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

TOKEN = "management-token-for-tests"
NOW = 1_794_992_800.0  # 2026-11-18T09:06:40Z
Ports = list[IListeningPort]


class FakeLog:
    """Has a level."""

    level = "info"

    def set_level(self, name: str) -> None:
        self.level = name


class FakeUpstream:
    """One that works."""

    base_url, breaker, state, health = "https://api.openai.com", "closed", "enabled", "unknown"
    number, weight, priority, in_flight, projects_out = 0, 1, 0, 0, 0


class FakeUpstreams:
    """Has one provider."""

    def __init__(self) -> None:
        self.openai = FakeUpstream()

    def listed(self) -> Any:
        return [("openai", [self.openai])]

    def keys_out(self, api: str, number: int) -> list[Any]:
        return []

    def last_probe(self, api: str, number: int) -> str:
        return ""

    def set_state(self, api: str, number: int, state: str) -> None:
        self.openai.state = state

    def in_flight(self) -> dict[str, int]:
        return {}


class DaemonTestCase(TestCase):
    """Runs commands in a thread, in front of a management API in this one.

    @cvar cache_scope: Who is served what is cached.
    """

    cache_scope = "project"

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.store = MemoryStore(self.clock)
        self.keys = MemoryKeys(self.clock)
        self.usage = MemoryUsage()
        self.audit = MemoryAudit()
        self.cache = contents(self.clock, scope=self.cache_scope)
        management = Management(
            ManagementContext(
                projects=self.store,
                tokens=self.store,
                keys=self.keys,
                groups=MemoryGroups(self.clock),
                audit_table=NoEntries(),
                sessions=MemorySessions(),
                alerts=NoEntries(),
                subjects=MemorySubjects(),
                issuers=["https://id.example.com"],
                usage=self.usage,
                audit=self.audit,
                apis={"openai": ["/v1/models"], "anthropic": ["/v1/models"]},
                default_api="openai",
                auth=ManagementAuth(TOKEN, FailedAttempts(), self.clock, keys=self.keys),
                clock=self.clock,
                now=self.clock.seconds,
                cache=self.cache,
                activity=idle_activity(self.clock),
                reload=lambda: succeed(ReloadResult((), ())),
                upstreams=FakeUpstreams(),
                log=FakeLog(),
                new_id=lambda: f"proj-{len(self.store.projects) + 1}",
            )
        )
        self.url = self.serve(Root(manage=management))
        self.dir = Path(self.mktemp()).absolute()
        self.dir.mkdir(parents=True)

    def serve(self, resource: IResource) -> str:
        """The URL at which C{resource} is served until the test is over."""
        listening: Any = reactor
        port = listening.listenTCP(0, Site(resource, timeout=None), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return f"http://127.0.0.1:{port.getHost().port}"

    def file(self, name: str, text: str, mode: int = 0o600) -> str:
        """The path of a file with this text."""
        path = self.dir / name
        path.write_text(text)
        path.chmod(mode)
        return str(path)

    async def run_cli(
        self, *arguments: str, environ: Mapping[str, str | None] | None = None, stdin: str | None = None
    ) -> Result:
        """Run C{llmproxy} with these arguments and this environment added."""
        clean = {name: None for name in os.environ if "LLMPROXY" in name or "MANAGEMENT_TOKEN" in name}
        given = {
            "LLMPROXY_URL": self.url,
            "LLMPROXY_MANAGEMENT_TOKEN": TOKEN,
            "LLMPROXY_STATE_DIR": str(self.dir),
            **(environ or {}),
        }
        result: Result = await deferToThread(
            CliRunner().invoke, main, arguments, input=stdin, env={**clean, **given}, prog_name="llmproxy"
        )
        return result

    async def ok(
        self, *arguments: str, environ: Mapping[str, str | None] | None = None, stdin: str | None = None
    ) -> str:
        """What a command that succeeds prints."""
        result = await self.run_cli(*arguments, environ=environ, stdin=stdin)
        self.assertEqual(result.exit_code, 0, result.output)
        return str(result.stdout)

    async def fails(
        self,
        code: int,
        *arguments: str,
        environ: Mapping[str, str | None] | None = None,
        stdin: str | None = None,
    ) -> str:
        """What a command that fails with this code says; it prints nothing."""
        result = await self.run_cli(*arguments, environ=environ, stdin=stdin)
        self.assertEqual((result.exit_code, result.stdout), (code, ""), result.output)
        self.assertNotIn("Traceback", result.stderr)
        return str(result.stderr)
