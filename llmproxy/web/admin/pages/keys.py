"""Management keys: who may manage, and what. A key's secret is on one page, once."""

from __future__ import annotations

from typing import Any

from llmproxy.errors import Conflict, Invalid
from llmproxy.web.admin.pages.form_problems import problem_text
from llmproxy.web.admin.pages.names import project_names
from llmproxy.web.admin.pages.project_choice import project_ids
from llmproxy.web.admin.visit import HtmlPage, Redirect, Result, Visit

ROLES = ("viewer", "operator", "admin")
PAGE_SIZE = 100


async def show_all(visit: Visit, problem: str = "", status: int = 200) -> HtmlPage:
    keys = await visit.api.get("/manage/keys", limit=PAGE_SIZE, cursor=visit.query.get("cursor", ""))
    names = await project_names(visit, [each for key in keys["data"] for each in key["projects"] or ()])
    values = {"keys": keys, "names": names, "roles": ROLES, "problem": problem, "form": visit.form}
    return HtmlPage("keys.html", values, status)


async def create(visit: Visit) -> Result:
    form = visit.form
    body: dict[str, Any] = {"name": form.get("name", "").strip(), "role": form.get("role", "")}
    try:
        if projects := await project_ids(visit, named_projects(form.get("projects", ""))):
            body["projects"] = projects
        issued = await visit.api.send("POST", "/manage/keys", body, form)
    except (Invalid, Conflict) as e:
        return await show_all(visit, problem_text(e), e.status)
    return HtmlPage("key_issued.html", {"key": issued}, 201)


def named_projects(text: str) -> list[str]:
    """What stands on its lines: the names of projects, or their ids."""
    return [each for line in text.splitlines() if (each := line.strip())]


async def revoke(visit: Visit) -> Result:
    await visit.api.send("DELETE", f"/manage/keys/{visit.arguments[0]}")
    return Redirect("/admin/keys", "key-revoked")
