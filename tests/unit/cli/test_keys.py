"""C{llmproxy key}."""

from __future__ import annotations

import json

from tests.unit.cli.daemon import DaemonTestCase


class KeyTests(DaemonTestCase):
    async def test_created(self) -> None:
        """The key is printed this once, and opens what its role allows."""
        await self.ok("project", "create", "--name", "Team")
        arguments = ("--name", "Lead", "--role", "viewer", "--project", "proj-1", "--output", "json")
        result = await self.run_cli("key", "create", *arguments)
        made = json.loads(result.stdout)
        self.assertEqual((made["role"], made["projects"]), ("viewer", ["proj-1"]))
        self.assertIn("not shown again", result.stderr)
        file = self.file("key", made["key"])
        self.assertIn("Team", await self.ok("project", "list", "--management-token-file", file))
        refused = await self.run_cli("token", "create", "--project", "proj-1", "--management-token-file", file)
        self.assertEqual(refused.exit_code, 77)
        self.assertIn("role", refused.stderr)

    async def test_listed_and_revoked(self) -> None:
        await self.ok("key", "create", "--name", "Script", "--role", "admin")
        listed = await self.ok("key", "list")
        self.assertIn("Script", listed)
        self.assertIn("all", listed)
        await self.ok("key", "revoke", "key-1")
        self.assertIn("revoked", await self.ok("key", "list"))
