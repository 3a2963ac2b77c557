"""Projects and groups by their names."""

from __future__ import annotations

import json

from tests.unit.cli.daemon import DaemonTestCase


class NameTests(DaemonTestCase):
    async def test_by_name(self) -> None:
        """What is called exactly so is meant, not what has the name in its own."""
        for name in ("Team", "Team B", "team"):
            await self.ok("project", "create", "--name", name)
        shown = json.loads(await self.ok("project", "show", "Team", "--output", "json"))
        self.assertEqual(shown["id"], "proj-1")
        created = json.loads(await self.ok("token", "create", "--project", "team", "--output", "json"))
        self.assertEqual(created["project_id"], "proj-3")

    async def test_several(self) -> None:
        """Of two with one name neither is changed; both ids are named, and each is taken."""
        await self.ok("project", "create", "--name", "Team")
        await self.ok("project", "create", "--name", "Team")
        said = await self.fails(2, "project", "deactivate", "Team")
        self.assertIn("2 projects are called Team; name one by its id: proj-1, proj-2.", said)
        self.assertTrue(all(project.active for project in self.store.projects.values()))
        await self.ok("project", "deactivate", "proj-2")
        self.assertEqual([project.active for project in self.store.projects.values()], [True, False])

    async def test_unknown(self) -> None:
        """A mistyped name is refused by the daemon, as an unknown id is."""
        await self.ok("project", "create", "--name", "Team")
        self.assertIn("There is no project Tema.", await self.fails(1, "project", "show", "Tema"))

    async def test_group_of_a_group(self) -> None:
        """Groups have names, too."""
        await self.ok("group", "create", "--name", "Company")
        await self.ok("group", "create", "--name", "Research", "--parent", "Company")
        company, research = json.loads(await self.ok("group", "list", "--output", "json"))["data"]
        self.assertEqual(research["parent_id"], company["id"])
        await self.ok("group", "update", "Research", "--no-parent")
        self.assertIsNone(json.loads(await self.ok("group", "show", "Research", "--output", "json"))["parent_id"])
