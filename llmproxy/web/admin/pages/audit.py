"""The audit log: who did what, and whether it is as it was written."""

from __future__ import annotations

from typing import Any

from llmproxy.errors import Invalid, NotFound
from llmproxy.web.admin.visit import HtmlPage, Visit

PAGE_SIZE = 100
FILTERS = ("search", "action", "actor", "outcome", "project_id")


async def show(visit: Visit) -> HtmlPage:
    wanted = {name: visit.query.get(name, "").strip() for name in FILTERS}
    problem, verdict = "", None
    found: dict[str, Any] = {"data": [], "next_cursor": None}
    try:
        found = await visit.api.get("/manage/audit", limit=PAGE_SIZE, cursor=visit.query.get("cursor", ""), **wanted)
        if visit.query.get("verify"):
            verdict = await visit.api.get("/manage/audit/verify")
    except (Invalid, NotFound) as e:
        problem = e.message
    values = {"entries": found, "wanted": wanted, "problem": problem, "verdict": verdict}
    return HtmlPage("audit.html", values, 422 if problem else 200)
