"""C{llmproxy token}."""

from __future__ import annotations

import json
from dataclasses import replace

from twisted.internet.defer import ensureDeferred

from tests.unit.cli.daemon import DaemonTestCase


class TokenTests(DaemonTestCase):
    def setUp(self) -> object:  # type: ignore[override]
        super().setUp()
        return ensureDeferred(self.ok("project", "create", "--name", "Team"))

    async def create(self, *arguments: str) -> None:
        await self.ok("token", "create", "--project", "proj-1", *arguments)

    async def test_created(self) -> None:
        """The token is printed this once, and whoever sees it is told so."""
        result = await self.run_cli("token", "create", "--project", "proj-1", "--output", "json")
        answer = json.loads(result.stdout)
        self.assertTrue(answer["token"].startswith("sk-lp-"))
        self.assertIn("not shown again", result.stderr)
        self.assertNotIn(answer["token"], await self.ok("token", "show", answer["id"]))
        self.assertNotIn(answer["token"], await self.ok("token", "list", "--output", "json"))

    async def test_rules(self) -> None:
        """Every option arrives as what it says."""
        await self.create(
            *(
                "--name",
                "laptop",
                "--expires-in",
                "24h",
                "--max-requests",
                "5",
                "--api",
                "openai",
                "--api",
                "anthropic",
            ),
            *("--endpoint", "/v1/models", "--model", "gpt-*", "--ip", "10.0.0.0/8"),
        )
        token = self.store.tokens["tok-1"]
        self.assertEqual((token.name, token.max_requests, token.apis), ("laptop", 5, ("openai", "anthropic")))
        self.assertEqual((token.endpoints, token.models, token.ips), (("/v1/models",), ("gpt-*",), ("10.0.0.0/8",)))
        self.assertEqual(token.expires_at, self.clock.seconds() + 86400)

    async def test_states(self) -> None:
        """What can no longer be used is not shown as if it could."""
        await self.create("--expires-in", "1h")
        await self.create("--max-requests", "5")
        await self.create()
        await self.ok("token", "revoke", "tok-3")
        await self.create()
        self.clock.advance(3600)
        self.store.tokens["tok-2"] = replace(self.store.tokens["tok-2"], request_count=5)
        lines = (await self.ok("token", "list")).splitlines()
        self.assertIn(" STATE ", lines[0])
        for line, state in zip(lines[1:], ("expired", "used up", "revoked", "active"), strict=True):
            self.assertIn(f"  {state}  ", line)
        self.assertIn("expired", await self.ok("token", "show", "tok-1"))

    async def test_updated(self) -> None:
        """Only what is named changes; rules and limits can be lifted."""
        await self.create("--name", "laptop", "--max-requests", "5", "--rpm", "60", "--model", "gpt-*")
        self.store.tokens["tok-1"] = replace(self.store.tokens["tok-1"], expires_at=self.clock.seconds() + 60)
        await self.ok(
            *("token", "update", "tok-1", "--model", "o3", "--model", "o4-*", "--budget-usd", "5/day"),
            *("--remove-rule", "expiry", "--remove-rule", "max-requests", "--remove-limit", "rpm", "--api", "openai"),
        )
        token = self.store.tokens["tok-1"]
        self.assertEqual((token.name, token.models, token.apis), ("laptop", ("o3", "o4-*"), ("openai",)))
        self.assertEqual((token.expires_at, token.max_requests), (None, None))
        self.assertEqual(token.allowance.requests_per_minute, None)
        self.assertEqual(len(token.allowance.budget_usd), 1)
        await self.ok("token", "update", "tok-1", "--remove-rule", "models")
        self.assertEqual(self.store.tokens["tok-1"].models, ())
        await self.fails(2, "token", "update", "tok-1")

    async def test_an_endpoint_that_no_api_has(self) -> None:
        said = await self.fails(1, "token", "create", "--project", "proj-1", "--endpoint", "/v1/chat/completion")
        self.assertIn("/v1/chat/completion is no endpoint of any API", said)

    async def test_listed(self) -> None:
        """Tokens are listed all, or one project's, with what they have used."""
        await self.create("--max-requests", "5")
        await self.ok("project", "create", "--name", "Other")
        await self.ok("token", "create", "--project", "proj-2")
        self.assertEqual(len((await self.ok("token", "list")).splitlines()), 3)
        (line,) = (await self.ok("token", "list", "--project", "proj-1")).splitlines()[1:]
        self.assertIn(" 0/5 ", line)

    async def test_revoked(self) -> None:
        """One token is revoked by its id, all of a project by the project's."""
        for _ in range(3):
            await self.create()
        await self.ok("token", "revoke", "tok-1")
        said = await self.ok("token", "revoke", "--project", "proj-1", "--output", "json")
        self.assertEqual(json.loads(said), {"revoked": 2})
        self.assertFalse(any(token.active for token in self.store.tokens.values()))

    async def test_revoke_what(self) -> None:
        """Neither or both is wrong usage, and revokes nothing."""
        await self.create()
        await self.fails(2, "token", "revoke")
        await self.fails(2, "token", "revoke", "tok-1", "--project", "proj-1")
        self.assertTrue(self.store.tokens["tok-1"].active)

    async def test_refused(self) -> None:
        """What the server finds wrong is said in its words."""
        said = await self.fails(1, "token", "create", "--project", "proj-1", "--expires-in", "soon")
        self.assertIn("expires_in", said)
        self.assertIn("422 invalid_request", said)
