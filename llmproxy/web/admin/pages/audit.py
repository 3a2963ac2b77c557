"""The audit log: who did what, and whether it is as it was written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmproxy.errors import Invalid, NotFound
from llmproxy.web.admin.formats import setting
from llmproxy.web.admin.pages.names import actor_names, project_names, token_names, written_names
from llmproxy.web.admin.pages.project_choice import chosen_project
from llmproxy.web.admin.visit import HtmlPage, Visit

PAGE_SIZE = 100
FILTERS = ("search", "action", "actor", "outcome")


async def show(visit: Visit) -> HtmlPage:
    project = await chosen_project(visit)
    wanted = {name: visit.query.get(name, "").strip() for name in FILTERS} | {"project_id": project.id}
    problem, verdict = project.problem, None
    found: dict[str, Any] = {"data": [], "next_cursor": None}
    try:
        found = await visit.api.get("/manage/audit", limit=PAGE_SIZE, cursor=visit.query.get("cursor", ""), **wanted)
        if visit.query.get("verify"):
            verdict = await visit.api.get("/manage/audit/verify")
    except (Invalid, NotFound) as e:
        problem = problem or e.message
    written = written_names(found["data"])
    unwritten = [each["actor"] for each in found["data"] if each["actor"] not in written]
    values = {
        "entries": found,
        "wanted": wanted,
        "project": project,
        "names": await project_names(visit, [each["project_id"] for each in found["data"]]),
        "token_names": await token_names(visit, [each["token_id"] for each in found["data"]]),
        "details": [setting(_unnamed(each["details"])) for each in found["data"]],
        "actor_names": await actor_names(visit, unwritten) | written,
        "problem": problem,
        "verdict": verdict,
    }
    return HtmlPage("audit.html", values, 422 if problem else 200)


def _unnamed(details: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is said beside them."""
    return {name: value for name, value in details.items() if name != "actor_name"}
