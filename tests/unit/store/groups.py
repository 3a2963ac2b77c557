"""What the store promises of groups of projects, on any database."""

from __future__ import annotations

from typing import Any

from llmproxy.errors import ChangedMeanwhile, Conflict, Invalid, NotFound
from llmproxy.model import Allowance, Budget, Grant, Group, PageRequest, Project, Token
from llmproxy.store.group_tree import groups_of_projects
from llmproxy.store.groups import GroupTable
from llmproxy.store.store import Store
from tests.unit.store.contract import Calendar

MONEY = Allowance(budget_usd=(Budget(5, "day"),))
RATE = Allowance(requests_per_minute=3)


class GroupContract:
    """To be mixed in where C{store} is open and C{now} is its calendar."""

    store: Store
    now: Calendar
    assertEqual: Any
    assertFailure: Any

    async def test_groups(self) -> None:
        """A tree: what cannot be is refused, what is in use stays, and a change undoes no other."""
        groups = GroupTable(self.store, self.now)
        top = await groups.create_group(Group("top", "Top", allowance=MONEY))
        team = await groups.create_group(Group("team", "Team", "top"))
        self.assertEqual((top.allowance, team.parent_id, team.projects, team.revision), (MONEY, "top", 0, 1))
        for wrong in (Group("top", "Top", "team"), Group("top", "Top", "top"), Group("top", "Top", "nothing")):
            await self.assertFailure(groups.update_group(wrong), Invalid)
        await self.assertFailure(groups.delete_group("top"), Conflict)
        await self.assertFailure(groups.get_group("nothing"), NotFound)
        await groups.update_group(Group("team", "Renamed", "top", RATE, revision=1))
        await self.assertFailure(groups.update_group(Group("team", "Late", revision=1)), ChangedMeanwhile)
        await self.assertFailure(groups.delete_group("team", 1), ChangedMeanwhile)
        page = await groups.group_page(PageRequest(1))
        rest = await groups.group_page(PageRequest(1, cursor=page.next_cursor))
        self.assertEqual(([each.id for each in page.items], page.total, len(rest.items)), (["top"], 2, 1))
        found = await groups.group_page(PageRequest(), "ENAM")
        self.assertEqual(([each.id for each in found.items], found.total), (["team"], 1))
        self.assertEqual((await groups.group_page(PageRequest(), "%")).total, 0, "it is no pattern")
        found = await groups.group_page(PageRequest(), ids=("team", "nothing"))
        self.assertEqual(([each.id for each in found.items], found.total), (["team"], 1))
        await groups.delete_group("team")
        await groups.delete_group("top")
        self.assertEqual((await groups.group_page(PageRequest())).items, [])

    async def test_limits_of_groups_in_grants(self) -> None:
        """The nearest first, without those that have none; whoever watches hears of any change of them."""
        heard: list[str] = []
        self.store.watch(heard.append)
        groups = GroupTable(self.store, self.now)
        await groups.create_group(Group("top", "Top", allowance=MONEY))
        await groups.create_group(Group("middle", "Middle", "top"))
        await groups.create_group(Group("team", "Team", "middle", RATE))
        project = await self.store.create_project(Project("inside", "P", group_id="team"))
        await self.store.create_project(Project("outside", "P"))
        self.assertEqual((project.group_id, (await groups.get_group("team")).projects), ("team", 1))
        _, secret = await self.store.create_token(Token("", "inside"))
        grant = await self.store.validate_token(secret)
        assert isinstance(grant, Grant)
        self.assertEqual([tuple(each) for each in grant.groups], [("team", "Team", RATE), ("top", "Top", MONEY)])
        (same,) = await self.store.validate_tokens([secret])
        self.assertEqual(same, grant)
        above = await self.store.read(lambda connection: groups_of_projects(connection, ["inside", "outside"]))
        self.assertEqual(above, {"inside": ("team", "middle", "top")})
        del heard[:]
        await groups.update_group(Group("team", "Team", "middle"))
        self.assertEqual(heard, [""])
        await self.assertFailure(groups.delete_group("team"), Conflict)
        await self.assertFailure(self.store.create_project(Project("lost", "P", group_id="nothing")), Conflict)
