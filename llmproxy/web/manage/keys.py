"""C{/manage/keys}: the credentials of those who manage, each with a role."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from llmproxy.base.timestamps import rfc3339
from llmproxy.errors import Invalid, NotFound
from llmproxy.management_key import ManagementKey, Role
from llmproxy.proxy.own_response import BufferedResponse
from llmproxy.web.manage.bodies import read
from llmproxy.web.manage.body_types import Body, Id, Name
from llmproxy.web.manage.deferred_model import DeferredModel
from llmproxy.web.manage.endpoint import Call, Endpoint, operation
from llmproxy.web.manage.paging import PAGE_PARAMETERS, list_response, page, query
from llmproxy.web.manage.stores import ManagementKeys
from llmproxy.web.manage.views import Time
from llmproxy.web.respond import json_response


class KeyCreate(Body):
    """A new management key: what to call it, what it may do, and with which projects."""

    name: Name
    role: Role = Field(description="viewer sees; operator changes projects, tokens and limits too; admin may do all.")
    projects: Annotated[tuple[Id, ...], Field(min_length=1, max_length=256)] | None = Field(
        None, description="The only projects that it sees and changes; null: all."
    )

    @field_validator("projects", mode="before")
    @classmethod
    def _listed(cls, given: object) -> object:
        return tuple(given) if isinstance(given, list) else given


class KeyView(DeferredModel):
    """What is known of a management key."""

    id: str
    name: str
    role: Role
    projects: list[str] | None = Field(description="The only projects that it sees and changes; null: all.")
    prefix: str = Field(description="The key's first characters, to recognise it by.")
    active: bool = Field(description="False once it has been revoked.")
    created_at: Time
    last_used_at: Time | None = Field(description="True to the minute.")
    deactivated_at: Time | None


class KeyIssued(KeyView):
    """A new management key."""

    key: str = Field(description="The key itself. Shown this once, and nowhere kept.")


class KeyList(DeferredModel):
    """One page of the management keys, oldest first."""

    data: list[KeyView]
    total: int | None = Field(description="How many there are in all; null behind a cursor.")
    next_cursor: str | None = Field(description="Where the next page begins; null where this is the last.")


class KeyResource(Endpoint):
    """What both have in common."""

    @property
    def keys(self) -> ManagementKeys:
        if self.context.keys is None:
            raise NotFound("There are no management keys here.")
        return self.context.keys


class KeyCollection(KeyResource):
    path = "/manage/keys"

    @operation("GET", "List management keys, oldest first.", KeyList, query=PAGE_PARAMETERS)
    async def list_keys(self, call: Call) -> BufferedResponse:
        part = page(query(call.uri, call.operation.query))
        return await list_response(await self.keys.key_page(part), key_json, self.context.clock)

    @operation("POST", "Issue a management key.", KeyIssued, KeyCreate, 201, action="key.create")
    async def create_key(self, call: Call) -> BufferedResponse:
        body = read(KeyCreate, call.body, self.context.body_context())
        call.audit.details = {"name": body.name, "role": body.role}
        if body.projects is not None:
            call.audit.details["projects"] = list(body.projects)
            await self._check_projects(body.projects)
        projects = None if body.projects is None else tuple(dict.fromkeys(body.projects))
        key, secret = await self.keys.create_key(ManagementKey("", body.name, body.role, projects))
        call.audit.details["key_id"] = key.id
        location = b"Location: /manage/keys/" + key.id.encode("ascii")
        return json_response(key_json(key) | {"key": secret}, 201, [location])

    async def _check_projects(self, projects: tuple[str, ...]) -> None:
        for project in projects:
            try:
                await self.context.projects.get_project_active(project)
            except NotFound as e:
                raise Invalid.part("pointer", "projects", e.message) from e


class KeyItem(KeyResource):
    path = "/manage/keys/{id}"

    @operation("GET", "Show what is known of a management key.", KeyView)
    async def get_key(self, call: Call) -> BufferedResponse:
        return json_response(key_json(await self.keys.get_key(call.id)))

    @operation("DELETE", "Revoke a management key, for good.", status=204, action="key.revoke")
    async def revoke_key(self, call: Call) -> BufferedResponse:
        call.audit.details = {"key_id": call.id}
        key = await self.keys.revoke_key(call.id)
        call.audit.details["name"] = key.name
        return BufferedResponse(204, lines=(b"Cache-Control: no-store",))


def key_json(key: ManagementKey) -> dict[str, object]:
    """L{KeyView} of it."""
    return KeyView(
        id=key.id,
        name=key.name,
        role=key.role,
        projects=None if key.projects is None else list(key.projects),
        prefix=key.prefix,
        active=key.active,
        created_at=rfc3339(key.created_at),
        last_used_at=None if key.last_used_at is None else rfc3339(key.last_used_at),
        deactivated_at=None if key.deactivated_at is None else rfc3339(key.deactivated_at),
    ).model_dump()
