"""C{/manage/projects}: the owners of provider keys."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import ClassVar

from llmproxy.model import Project
from llmproxy.web.manage.bodies import ProjectChange, ProjectCreate, read
from llmproxy.web.manage.endpoint import Call, Endpoint, Operation
from llmproxy.web.manage.paging import PAGE, listed, page, query
from llmproxy.web.manage.views import ProjectList, ProjectView, Revoked, project_json
from llmproxy.web.respond import Answer, as_json


class Projects(Endpoint):
    path = "/manage/projects"
    operations: ClassVar = {
        b"GET": Operation("list_projects", "List projects, oldest first.", ProjectList, query=PAGE),
        b"POST": Operation(
            "create_project", "Create a project.", ProjectView, ProjectCreate, 201, action="project.create"
        ),
    }

    async def list_projects(self, call: Call) -> Answer:
        part = page(query(call.request.uri, call.operation.query))
        return await listed(await self.desk.projects.project_page(part), project_json, self.desk.clock)

    async def create_project(self, call: Call) -> Answer:
        body = read(ProjectCreate, call.body, self.desk.known())
        now, keys = self.desk.now(), body.given_keys(self.desk.default_api)
        call.act.details = {"name": body.name, "active": body.active, "api_keys": sorted(keys)}
        project = await self.desk.projects.create_project(
            Project(
                id=self.desk.new_id(),
                name=body.name,
                active=body.active,
                api_keys={api: key for api, key in keys.items() if key},
                allowance=body.limits(),
                created_at=now,
                updated_at=now,
                deactivated_at=None if body.active else now,
            )
        )
        call.act.project_id = project.id
        return as_json(project_json(project), 201, [b"Location: /manage/projects/" + project.id.encode("ascii")])


class OneProject(Endpoint):
    path = "/manage/projects/{id}"
    operations: ClassVar = {
        b"GET": Operation("get_project", "Show a project.", ProjectView),
        b"PATCH": Operation(
            "update_project",
            "Rename, activate or deactivate a project, or change its provider keys or limits.",
            ProjectView,
            ProjectChange,
            action="project.update",
        ),
    }
    refusal = 'A project is kept, so that what it did stays known. Deactivate it: PATCH {"active": false}.'

    async def get_project(self, call: Call) -> Answer:
        project = await self.desk.projects.get_project_by_id(call.id)
        return as_json(project_json(project, await self.desk.standing("project", project.id, project.allowance)))

    async def update_project(self, call: Call) -> Answer:
        call.act.project_id = call.id
        body = read(ProjectChange, call.body, self.desk.known())
        if body.active is not None:
            call.act.action = "project.activate" if body.active else "project.deactivate"
        call.act.details = {"changed": sorted(body.model_fields_set)}
        ends = self.desk.in_force("project", call.id) if body.active is False else nullcontext()
        async with ends, self.desk.change():
            project = await self.desk.projects.get_project_by_id(call.id)
            changed = await self.desk.projects.update_project(self._changed(project, body))
        if changed.active and self.desk.revocations is not None:
            self.desk.revocations.withdraw("project", call.id)
        return as_json(project_json(changed))

    def _changed(self, project: Project, body: ProjectChange) -> Project:
        now = self.desk.now()
        active = project.active if body.active is None else body.active
        return replace(
            project,
            name=project.name if body.name is None else body.name,
            active=active,
            api_keys=body.given_keys(self.desk.default_api),
            allowance=body.limits(project.allowance),
            updated_at=now,
            deactivated_at=None if active else project.deactivated_at or now,
        )


class Revocation(Endpoint):
    path = "/manage/projects/{id}/tokens/revoke"
    operations: ClassVar = {
        b"POST": Operation(
            "revoke_project_tokens", "Revoke all tokens of a project.", Revoked, action="project.tokens.revoke"
        )
    }

    async def revoke_project_tokens(self, call: Call) -> Answer:
        call.act.project_id = call.id
        async with self.desk.in_force("tokens of project", call.id):
            revoked = await self.desk.tokens.revoke_project_tokens(call.id)
        call.act.details = {"revoked": revoked}
        return as_json({"revoked": revoked})
