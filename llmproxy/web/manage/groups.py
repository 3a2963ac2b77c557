"""C{/manage/groups}: groups of projects, whose limits hold for all below them together."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Self

from pydantic import Field, model_validator

from llmproxy.base.timestamps import rfc3339
from llmproxy.errors import Invalid, NotFound
from llmproxy.limits.limiter import LimitStatus
from llmproxy.model import Group
from llmproxy.proxy.own_response import BufferedResponse
from llmproxy.web.manage.bodies import GROUP_TEXT, no_null, read
from llmproxy.web.manage.body_types import Id, Name
from llmproxy.web.manage.deferred_model import DeferredModel
from llmproxy.web.manage.endpoint import Call, Endpoint, ManagementContext, operation
from llmproxy.web.manage.limit_bodies import Limits
from llmproxy.web.manage.paging import PAGE_PARAMETERS, ids, list_response, page, query, search_text
from llmproxy.web.manage.preconditions import etag_line
from llmproxy.web.manage.stores import Groups
from llmproxy.web.manage.views import LimitsView, Time, limits_json
from llmproxy.web.respond import json_response


class GroupCreate(Limits):
    """A new group of projects: its name, the group that it belongs to, and its limits."""

    name: Name
    parent_id: Id | None = Field(None, description=GROUP_TEXT)


class GroupChange(Limits):
    """What is to change of a group; what is left out stays."""

    name: Name | None = None
    parent_id: Id | None = Field(None, description=GROUP_TEXT)

    @model_validator(mode="after")
    def _not_null(self) -> Self:
        return no_null(self, "name")


class GroupFacts(DeferredModel):
    id: str
    name: str
    parent_id: str | None = Field(description="The group that it belongs to; null where it belongs to none.")
    projects: int = Field(description="How many projects are in it, those further below not counted.")
    created_at: Time
    updated_at: Time


class GroupView(LimitsView, GroupFacts):
    """A group of projects."""


class GroupList(DeferredModel):
    """One page of the groups, oldest first."""

    data: list[GroupView]
    total: int | None = Field(description="How many there are in all; null behind a cursor.")
    next_cursor: str | None = Field(description="Where the next page begins; null where this is the last.")


class GroupResource(Endpoint):
    """What both have in common."""

    @property
    def groups(self) -> Groups:
        return groups_of(self.context)


class GroupCollection(GroupResource):
    path = "/manage/groups"

    @operation("GET", "List groups of projects, oldest first.", GroupList, query=("id", "search", *PAGE_PARAMETERS))
    async def list_groups(self, call: Call) -> BufferedResponse:
        asked = query(call.uri, call.operation.query)
        found = await self.groups.group_page(page(asked), search_text(asked), ids(asked))
        return await list_response(found, group_json, self.context.clock)

    @operation("POST", "Create a group of projects.", GroupView, GroupCreate, 201, action="group.create")
    async def create_group(self, call: Call) -> BufferedResponse:
        body = read(GroupCreate, call.body, self.context.body_context())
        call.audit.details = {"name": body.name, "parent_id": body.parent_id}
        group = await self.groups.create_group(
            Group(self.context.new_id(), body.name, body.parent_id or "", body.limits())
        )
        call.audit.details["group_id"] = group.id
        location = b"Location: /manage/groups/" + group.id.encode("ascii")
        return json_response(group_json(group), 201, [location, etag_line(group.revision)])


class GroupItem(GroupResource):
    path = "/manage/groups/{id}"

    @operation("GET", "Show a group, and how its limits stand.", GroupView)
    async def get_group(self, call: Call) -> BufferedResponse:
        group = await self.groups.get_group(call.id)
        standing = await self.context.standing("group", group.id, group.allowance)
        return json_response(group_json(group, standing), 200, [etag_line(group.revision)])

    @operation("PATCH", "Rename a group, move it, or change its limits.", GroupView, GroupChange, action="group.update")
    async def update_group(self, call: Call) -> BufferedResponse:
        body = read(GroupChange, call.body, self.context.body_context())
        call.audit.details = {"group_id": call.id, "changed": sorted(body.model_fields_set)}
        group = await self.context.altered(partial(self._update, call, body))
        return json_response(group_json(group), 200, [etag_line(group.revision)])

    @operation("DELETE", "Remove a group that has no projects and no groups.", status=204, action="group.delete")
    async def delete_group(self, call: Call) -> BufferedResponse:
        call.audit.details = {"group_id": call.id}
        revision = 0
        if call.preconditions.if_match:
            group = await self.groups.get_group(call.id)
            call.preconditions.check(group.revision)
            revision = group.revision
        await self.groups.delete_group(call.id, revision)
        return BufferedResponse(204, lines=(b"Cache-Control: no-store",))

    async def _update(self, call: Call, body: GroupChange) -> Group:
        group = await self.groups.get_group(call.id)
        call.preconditions.check(group.revision)
        return await self.groups.update_group(
            replace(
                group,
                name=group.name if body.name is None else body.name,
                parent_id=(body.parent_id or "") if "parent_id" in body.model_fields_set else group.parent_id,
                allowance=body.limits(group.allowance),
            )
        )


def groups_of(context: ManagementContext) -> Groups:
    """The store of groups; L{NotFound} where there is none."""
    if context.groups is None:
        raise NotFound("There are no groups here.")
    return context.groups


async def check_group(context: ManagementContext, group_id: str | None) -> None:
    """L{Invalid} where a project is to be in a group that there is not."""
    if group_id:
        try:
            await groups_of(context).get_group(group_id)
        except NotFound as e:
            raise Invalid.part("pointer", "group_id", e.message) from e


def group_json(group: Group, standings: list[LimitStatus] | None = None) -> dict[str, object]:
    """L{GroupView} of it."""
    return GroupView(
        id=group.id,
        name=group.name,
        parent_id=group.parent_id or None,
        projects=group.projects,
        created_at=rfc3339(group.created_at),
        updated_at=rfc3339(group.updated_at),
        **limits_json(group.allowance, standings),
    ).model_dump()
