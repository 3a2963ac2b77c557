"""C{/manage/projects}: the owners of provider keys."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from functools import partial

from llmproxy.base.secret_reference import SecretReference
from llmproxy.errors.management import RoleNotAllowed
from llmproxy.model import Project
from llmproxy.proxy.own_response import BufferedResponse
from llmproxy.web.manage.bodies import Keys, ProjectChange, ProjectCreate, read
from llmproxy.web.manage.endpoint import Call, Endpoint, operation
from llmproxy.web.manage.groups import check_group
from llmproxy.web.manage.limit_bodies import Limits
from llmproxy.web.manage.paging import (
    FILTER_PARAMETERS,
    PAGE_PARAMETERS,
    ids,
    list_filter,
    list_response,
    page,
    query,
)
from llmproxy.web.manage.policy_bodies import check_endpoints
from llmproxy.web.manage.preconditions import etag_line
from llmproxy.web.manage.roles import Principal
from llmproxy.web.manage.views import ProjectList, ProjectView, Revoked, changes_between, project_json
from llmproxy.web.respond import json_response

LIMITS_ONLY = "An operator of some projects may change their limits and tokens, nothing else."
ADMINS_ONLY = "A provider key that refers to a variable, a file or a plugin of the server is set by an admin only."


class ProjectCollection(Endpoint):
    path = "/manage/projects"

    @operation("GET", "List projects, oldest first.", ProjectList, query=("id", *FILTER_PARAMETERS, *PAGE_PARAMETERS))
    async def list_projects(self, call: Call) -> BufferedResponse:
        asked = query(call.uri, call.operation.query)
        wanted = list_filter(call.uri, asked, _among(call.principal, ids(asked)))
        found = await self.context.projects.project_page(page(asked), wanted)
        return await list_response(found, project_json, self.context.clock)

    @operation("POST", "Create a project.", ProjectView, ProjectCreate, 201, action="project.create")
    async def create_project(self, call: Call) -> BufferedResponse:
        body = read(ProjectCreate, call.body, self.context.body_context())
        now, keys = self.context.now(), body.provider_keys(self.context.default_api)
        call.audit.details = {
            "name": body.name,
            "active": body.active,
            "api_keys": sorted(keys),
            **_references(call, body, self.context.default_api),
        }
        await check_group(self.context, body.group_id)
        policy = body.policy()
        check_endpoints(policy.endpoints, policy.apis, self.context.apis)
        project = await self.context.projects.create_project(
            Project(
                id=self.context.new_id(),
                name=body.name,
                active=body.active,
                api_keys={api: key for api, key in keys.items() if key},
                further_keys=body.further_keys(self.context.default_api),
                allowance=body.limits(),
                policy=policy,
                created_at=now,
                updated_at=now,
                deactivated_at=None if body.active else now,
                group_id=body.group_id or "",
                **body.notes(),
            )
        )
        call.audit.project_id = project.id
        location = b"Location: /manage/projects/" + project.id.encode("ascii")
        return json_response(project_json(project), 201, [location, etag_line(project.revision)])


def _among(principal: Principal, asked: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Of which projects the list is to be: those of these ids that the caller sees."""
    return principal.projects if asked is None else tuple(each for each in asked if principal.sees(each))


class ProjectItem(Endpoint):
    path = "/manage/projects/{id}"

    @operation("GET", "Show a project.", ProjectView)
    async def get_project(self, call: Call) -> BufferedResponse:
        project = await self.context.projects.get_project_by_id(call.id)
        standing = await self.context.standing("project", project.id, project.allowance)
        return json_response(project_json(project, standing), 200, [etag_line(project.revision)])

    @operation(
        "PATCH",
        "Rename, activate or deactivate a project, or change its provider keys, its limits or what it allows.",
        ProjectView,
        ProjectChange,
        action="project.update",
    )
    async def update_project(self, call: Call) -> BufferedResponse:
        call.audit.project_id = call.id
        body = read(ProjectChange, call.body, self.context.body_context())
        if body.active is not None:
            call.audit.action = "project.activate" if body.active else "project.deactivate"
        references = _references(call, body, self.context.default_api)
        call.audit.details = {"changed": sorted(body.model_fields_set), **references}
        if not call.principal.manages_projects and body.model_fields_set - Limits.model_fields.keys():
            raise RoleNotAllowed(LIMITS_ONLY)
        if "group_id" in body.model_fields_set:
            if call.principal.projects is not None:
                raise RoleNotAllowed("Who is bound to some projects may not move them to other groups.")
            await check_group(self.context, body.group_id)
        ends = self.context.in_force("project", call.id) if body.active is False else nullcontext()
        async with ends:
            changed = await self.context.altered(partial(self._update, call, body))
        if changed.active and self.context.revocations is not None:
            self.context.revocations.withdraw("project", call.id)
        return json_response(project_json(changed), 200, [etag_line(changed.revision)])

    @operation(
        "DELETE",
        "Deactivate a project: it is kept, so that what it did stays known.",
        status=204,
        action="project.deactivate",
    )
    async def deactivate_project(self, call: Call) -> BufferedResponse:
        call.audit.project_id = call.id
        if not call.principal.manages_projects:
            raise RoleNotAllowed(LIMITS_ONLY)
        async with self.context.in_force("project", call.id):
            await self.context.altered(
                partial(self._update, call, ProjectChange.model_construct({"active"}, active=False))
            )
        return BufferedResponse(204, lines=(b"Cache-Control: no-store",))

    async def _update(self, call: Call, body: ProjectChange) -> Project:
        project = await self.context.projects.get_project_by_id(call.id)
        call.preconditions.check(project.revision)
        changed = self._changed(project, body)
        if body.model_fields_set & {"endpoints", "apis"}:
            check_endpoints(changed.policy.endpoints, changed.policy.apis, self.context.apis)
        stored = await self.context.projects.update_project(changed)
        call.audit.details["changes"] = changes_between(project_json(project), project_json(stored))
        return stored

    def _changed(self, project: Project, body: ProjectChange) -> Project:
        now = self.context.now()
        active = project.active if body.active is None else body.active
        return replace(
            project,
            name=project.name if body.name is None else body.name,
            active=active,
            api_keys=body.provider_keys(self.context.default_api),
            further_keys=body.further_keys(self.context.default_api),
            allowance=body.limits(project.allowance),
            policy=body.policy(project.policy),
            updated_at=now,
            deactivated_at=None if active else project.deactivated_at or now,
            group_id=(body.group_id or "") if "group_id" in body.model_fields_set else project.group_id,
            **body.notes(),
        )


class ProjectTokensRevocation(Endpoint):
    path = "/manage/projects/{id}/tokens/revoke"

    @operation("POST", "Revoke all tokens of a project.", Revoked, action="project.tokens.revoke")
    async def revoke_project_tokens(self, call: Call) -> BufferedResponse:
        call.audit.project_id = call.id
        async with self.context.in_force("tokens of project", call.id):
            revoked = await self.context.tokens.revoke_project_tokens(call.id)
        call.audit.details = {"revoked": revoked}
        return json_response({"revoked": revoked})


def _references(call: Call, body: Keys, default_api: str) -> dict[str, dict[str, str]]:
    """What the audit log is told of references among a body's keys; L{RoleNotAllowed} for whoever may not set any."""
    further = body.further_keys(default_api)
    found = {}
    for api, key in body.provider_keys(default_api).items():
        references = [str(each) for each in (key, *further[api]) if isinstance(each, SecretReference)]
        if references:
            found[api] = ", ".join(references)
    if found and call.principal.role != "admin":
        raise RoleNotAllowed(ADMINS_ONLY)
    return {"references": found} if found else {}
