"""Tokens: a list, one with its limits, and its forms. A token's secret is on one page, once."""

from __future__ import annotations

from typing import Any

from llmproxy.errors import Conflict, Invalid, NotFound, ProxyError
from llmproxy.errors.management import PreconditionFailed
from llmproxy.web.admin import formats
from llmproxy.web.admin.pages import projects
from llmproxy.web.admin.pages.alerts import current_alerts, in_force
from llmproxy.web.admin.pages.form_problems import problem_text
from llmproxy.web.admin.pages.forms import (
    CHANGED_MEANWHILE,
    LIMIT_FIELDS,
    NOTHING_FOUND,
    labels_of,
    limit_values,
    note_values,
    number,
)
from llmproxy.web.admin.pages.names import project_names
from llmproxy.web.admin.pages.policies import policy_facts, policy_inputs, policy_values
from llmproxy.web.admin.pages.project_choice import chosen_project
from llmproxy.web.admin.visit import HtmlPage, Redirect, Result, Visit

PAGE_SIZE = 50
FILTERS = ("search", "active", "label")
ALWAYS_TOLD = ("apis", "models", "endpoints", "ips")


async def show_all(visit: Visit) -> HtmlPage:
    project = await chosen_project(visit)
    wanted = {name: visit.query.get(name, "").strip() for name in FILTERS} | {"project_id": project.id}
    problem, found = project.problem, NOTHING_FOUND
    asked = {**wanted, "label": labels_of(wanted["label"]), "cursor": visit.query.get("cursor", "")}
    try:
        found = await visit.api.get("/manage/tokens", limit=PAGE_SIZE, **asked)
    except Invalid as e:
        problem = problem or e.message
    names = await project_names(visit, [each["project_id"] for each in found["data"]])
    alerts = await current_alerts(visit, owner="token")
    values = {
        "tokens": found,
        "wanted": wanted,
        "project": project,
        "names": names,
        "alerts": alerts,
        "problem": problem,
    }
    return HtmlPage("tokens.html", values, 422 if problem else 200)


async def create(visit: Visit) -> Result:
    form = visit.form
    body: dict[str, Any] = {"project_id": visit.arguments[0], "name": form.get("name", "").strip()}
    if expires_in := form.get("expires_in", "").strip():
        body["expires_in"] = expires_in
    if requests := form.get("max_requests", "").strip():
        body["max_requests"] = number(requests)
    body |= {name: value for name, value in (limit_values(form) | policy_values(form)).items() if value}
    try:
        issued = await visit.api.send("POST", "/manage/tokens", body, form)
    except (Invalid, Conflict, NotFound) as e:
        return await projects.show(visit, problem_text(e), e.status, "token")
    return HtmlPage("token_issued.html", {"token": issued, "rotated": False}, 201)


async def show(visit: Visit, problem: str = "", status: int = 200, form: str = "") -> HtmlPage:
    """
    @param form: Which of the forms has the problem.
    """
    token, seen = await visit.api.get_tagged(f"/manage/tokens/{visit.arguments[0]}")
    try:
        project = await visit.api.get(f"/manage/projects/{token['project_id']}")
    except ProxyError:
        project = {"id": token["project_id"], "name": token["project_id"], "active": False, "limits": None}
    recent = await visit.api.get("/manage/requests", token_id=token["id"], limit=20)
    own = await current_alerts(visit, owner="token", owner_id=token["id"])
    above = await current_alerts(visit, owner="project", owner_id=project["id"])
    values = {
        "alerts": [
            *in_force(own, token["id"], token["limits"]),
            *in_force(above, project["id"], project["limits"]),
        ],
        "token": token,
        "seen": seen,
        "project": project,
        "recent": recent["data"],
        "limit_fields": LIMIT_FIELDS,
        "facts": policy_facts(token, ALWAYS_TOLD),
        "project_facts": policy_facts(project),
        "policy": policy_inputs(token, visit.form),
        "problem": problem,
        "problem_form": form,
        "form": visit.form,
    }
    return HtmlPage("token.html", values, status)


async def change(visit: Visit) -> Result:
    form = visit.form
    body: dict[str, Any] = {"name": form.get("name", "").strip(), **limit_values(form), **note_values(form)}
    body["max_requests"] = number(form.get("max_requests", ""))
    body |= policy_values(form)
    if expires_in := form.get("expires_in", "").strip():
        body["expires_in"] = expires_in
    try:
        await visit.api.send("PATCH", f"/manage/tokens/{visit.arguments[0]}", body, form)
    except (Invalid, Conflict) as e:
        return await show(visit, problem_text(e), e.status, "settings")
    except PreconditionFailed as e:
        return await show(visit, CHANGED_MEANWHILE, e.status, "settings")
    return Redirect(f"/admin/tokens/{visit.arguments[0]}", "token-changed")


async def rotate(visit: Visit) -> Result:
    """Give it another secret, which is on the page that follows, once."""
    grace = visit.form.get("grace", "").strip()
    try:
        path = f"/manage/tokens/{visit.arguments[0]}/rotate"
        rotated = await visit.api.send(
            "POST", path, {"grace": grace} if grace else {}, {"once": visit.form.get("once", "")}
        )
    except (Invalid, Conflict) as e:
        return await show(visit, problem_text(e), e.status, "rotate")
    # What was valid until now may be valid no more: without a grace that moment is this one.
    ends_at = rotated["previous_expires_at"]
    lasts = formats.parsed(ends_at).timestamp() > visit.now + 1
    return HtmlPage(
        "token_issued.html", {"token": rotated, "rotated": True, "previous": ends_at if lasts else None}, 201
    )


async def revoke(visit: Visit) -> Result:
    await visit.api.send("DELETE", f"/manage/tokens/{visit.arguments[0]}")
    return Redirect(f"/admin/tokens/{visit.arguments[0]}", "token-revoked")
