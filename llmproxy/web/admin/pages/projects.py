"""Projects: a list, one with all that belongs to it, and its forms."""

from __future__ import annotations

from typing import Any

from llmproxy.errors import Conflict, Invalid
from llmproxy.errors.management import PreconditionFailed
from llmproxy.web.admin.pages.alerts import current_alerts, in_force
from llmproxy.web.admin.pages.form_problems import problem_text
from llmproxy.web.admin.pages.forms import (
    CHANGED_MEANWHILE,
    LIMIT_FIELDS,
    NOTHING_FOUND,
    labels_of,
    limit_values,
    note_values,
)
from llmproxy.web.admin.pages.groups import all_groups
from llmproxy.web.admin.pages.overview import activity_plots
from llmproxy.web.admin.pages.policies import policy_facts, policy_inputs, policy_values
from llmproxy.web.admin.visit import HtmlPage, Redirect, Result, Visit, segment

PAGE_SIZE = 50
FILTERS = ("search", "active", "label")


async def show_all(visit: Visit, problem: str = "", status: int = 200) -> HtmlPage:
    wanted = {name: visit.query.get(name, "").strip() for name in FILTERS}
    found = NOTHING_FOUND
    asked = {**wanted, "label": labels_of(wanted["label"]), "cursor": visit.query.get("cursor", "")}
    try:
        found = await visit.api.get("/manage/projects", limit=PAGE_SIZE, **asked)
    except Invalid as e:
        problem, status = problem or e.message, max(status, 422)
    values = {
        "projects": found,
        "wanted": wanted,
        "groups": {each["id"]: each["name"] for each in await all_groups(visit)},
        "alerts": await current_alerts(visit, owner="project"),
        "problem": problem,
        "form": visit.form,
    }
    return HtmlPage("projects.html", values, status)


async def create(visit: Visit) -> Result:
    try:
        body = {"name": visit.form.get("name", "").strip()}
        made = await visit.api.send("POST", "/manage/projects", body, visit.form)
    except (Invalid, Conflict) as e:
        return await show_all(visit, problem_text(e), e.status)
    return Redirect(f"/admin/projects/{segment(made['id'])}", "project-created")


async def show(visit: Visit, problem: str = "", status: int = 200, form: str = "") -> HtmlPage:
    """
    @param form: Which of the forms has the problem.
    """
    project_id = visit.arguments[0]
    project, seen = await visit.api.get_tagged(f"/manage/projects/{project_id}")
    tokens = await visit.api.get(
        "/manage/tokens", project_id=project_id, limit=PAGE_SIZE, cursor=visit.query.get("cursor", "")
    )
    report = await visit.api.get("/manage/activity", period="7d", project_id=project_id)
    values: dict[str, Any] = {
        "project": project,
        "seen": seen,
        "tokens": tokens,
        "plots": activity_plots(report)[:2],
        "total": report["total"],
        "apis": await _apis(visit),
        "groups": await all_groups(visit),
        "alerts": in_force(await current_alerts(visit, project_id=project["id"]), project["id"], project["limits"]),
        "limit_fields": LIMIT_FIELDS,
        "facts": policy_facts(project),
        "policy": policy_inputs(project, visit.form if form == "settings" else {}),
        "problem": problem,
        "problem_form": form,
        "form": visit.form,
    }
    return HtmlPage("project.html", values, status)


async def _apis(visit: Visit) -> list[str]:
    document = await visit.api.get("/manage/apis")
    return [each["name"] for each in document["data"]]


async def change(visit: Visit) -> Result:
    form = visit.form
    body = {"name": form.get("name", "").strip(), **limit_values(form), **policy_values(form), **note_values(form)}
    if "group_id" in form:
        body["group_id"] = form["group_id"] or None
    return await _changed(visit, body, "project-changed", "settings")


async def change_key(visit: Visit) -> Result:
    keys = visit.form.get("key", "").split()
    body = {"api_keys": {visit.form.get("api", ""): keys if len(keys) > 1 else keys[0] if keys else None}}
    return await _changed(visit, body, "project-changed", "keys")


async def change_active(visit: Visit) -> Result:
    active = visit.form.get("active") == "true"
    return await _changed(visit, {"active": active}, "project-activated" if active else "project-deactivated", "")


async def _changed(visit: Visit, body: dict[str, Any], done: str, form: str) -> Result:
    path = f"/manage/projects/{visit.arguments[0]}"
    try:
        await visit.api.send("PATCH", path, body, visit.form)
    except (Invalid, Conflict) as e:
        return await show(visit, problem_text(e), e.status, form)
    except PreconditionFailed as e:
        return await show(visit, CHANGED_MEANWHILE, e.status, form)
    return Redirect(f"/admin/projects/{visit.arguments[0]}", done)


async def revoke_tokens(visit: Visit) -> Result:
    await visit.api.send("POST", f"/manage/projects/{visit.arguments[0]}/tokens/revoke")
    return Redirect(f"/admin/projects/{visit.arguments[0]}", "tokens-revoked")
