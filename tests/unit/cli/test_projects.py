"""C{llmproxy project}."""

from __future__ import annotations

import json

from tests.unit.cli.daemon import DaemonTestCase


class ProjectTests(DaemonTestCase):
    async def create(self, *arguments: str) -> None:
        await self.ok("project", "create", "--name", "Team", *arguments)

    async def test_created(self) -> None:
        """A project is shown with its id and masked keys; keys come from where the arguments say."""
        path = self.file("key", "sk-file-1\n")
        said = await self.ok(
            *("project", "create", "--name", "Team"),
            *("--api-key", "openai=env:KEY", "--api-key", f"anthropic=@{path}"),
            environ={"KEY": "sk-env-12345"},
        )
        self.assertIn("proj-1", said)
        self.assertIn("sk-…45", said)
        self.assertEqual(self.store.keys["proj-1"], {"openai": "sk-env-12345", "anthropic": "sk-file-1"})
        for secret in ("sk-env-12345", "sk-file-1"):
            self.assertNotIn(secret, said)

    async def test_default_api(self) -> None:
        """A key without an API's name is the default API's, here from standard input."""
        await self.ok("project", "create", "--name", "Team", "--api-key", "-", stdin="sk-stdin\n")
        self.assertEqual(self.store.keys["proj-1"], {"openai": "sk-stdin"})

    async def test_prompt(self) -> None:
        """A key can be typed, and is not echoed."""
        result = await self.run_cli(
            "project", "create", "--name", "Team", "--api-key", "anthropic=prompt", stdin="sk-typed\n"
        )
        self.assertEqual((result.exit_code, self.store.keys["proj-1"]), (0, {"anthropic": "sk-typed"}))
        self.assertNotIn("sk-typed", result.output)
        self.assertIn("anthropic", result.stderr)

    async def test_listed(self) -> None:
        """All projects are listed, however many pages they are."""
        for _ in range(3):
            await self.create()
        table = (await self.ok("project", "list")).splitlines()
        self.assertEqual(table[0].split(), ["ID", "NAME", "ACTIVE", "KEYS", "CREATED"])
        self.assertEqual([line.split()[0] for line in table[1:]], ["proj-1", "proj-2", "proj-3"])
        found = json.loads(await self.ok("project", "list", "--output", "json"))
        self.assertEqual((len(found["data"]), found["total"]), (3, 3))

    async def test_none(self) -> None:
        """A list of nothing is its headings."""
        self.assertEqual(len((await self.ok("project", "list")).splitlines()), 1)

    async def test_options_before_the_command(self) -> None:
        """What holds for every command may stand before it or after it; the latter counts."""
        await self.create()
        self.assertEqual(json.loads(await self.ok("--output", "json", "project", "show", "proj-1"))["name"], "Team")
        said = await self.ok("--output", "json", "project", "show", "proj-1", "--output", "table")
        self.assertIn("name                 Team", said)

    async def test_updated(self) -> None:
        """What is named is changed, a key can be removed, the rest stays."""
        await self.ok(
            *("project", "create", "--name", "Team", "--api-key", "openai=env:K", "--api-key", "anthropic=env:K"),
            environ={"K": "sk-1"},
        )
        await self.ok("project", "update", "proj-1", "--name", "New", "--remove-api-key", "anthropic")
        self.assertEqual((self.store.projects["proj-1"].name, self.store.keys["proj-1"]), ("New", {"openai": "sk-1"}))
        await self.ok("project", "update", "proj-1", "--api-key", "-", stdin="sk-2")
        self.assertEqual((self.store.projects["proj-1"].name, self.store.keys["proj-1"]), ("New", {"openai": "sk-2"}))

    async def test_deactivated(self) -> None:
        """A project can be stopped and started."""
        await self.create()
        self.assertRegex(await self.ok("project", "deactivate", "proj-1"), "active +no")
        self.assertFalse(self.store.projects["proj-1"].active)
        self.assertRegex(await self.ok("project", "activate", "proj-1"), "active +yes")

    async def test_unknown(self) -> None:
        """An id that nobody has ends with 1 and the server's words, whatever is in it."""
        for name in ("nobody", "../tokens", "a b", "ü", ""):
            said = await self.fails(1, "project", "deactivate", name)
            self.assertIn("404 not_found", said)

    async def test_name_from_a_terminals_nightmare(self) -> None:
        """What the server says does not steer the terminal."""
        await self.ok("project", "create", "--name", "a\u202eb\u200b")
        self.assertIn("a?b?", await self.ok("project", "list"))
