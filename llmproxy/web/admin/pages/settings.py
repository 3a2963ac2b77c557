"""The settings with their sources, and how they are read again."""

from __future__ import annotations

from typing import Any

from llmproxy.errors import Invalid
from llmproxy.web.admin.visit import HtmlPage, Visit


async def show(visit: Visit, outcome: dict[str, Any] | None = None, problem: str = "", status: int = 200) -> HtmlPage:
    """
    @param outcome: What a reload has just brought; C{problem}: why it has not.
    """
    found: list[dict[str, Any]] = []
    try:
        found = (await visit.api.get("/manage/settings"))["data"]
    except Invalid as e:
        problem, status = problem or e.message, 422
    set_only = visit.query.get("all") != "1"
    rows = [each for each in found if not set_only or each["source"] != "default"]
    values = {"rows": rows, "set_only": set_only, "outcome": outcome, "problem": problem}
    return HtmlPage("settings.html", values, status)


async def reload(visit: Visit) -> HtmlPage:
    try:
        outcome = await visit.api.send("POST", "/manage/reload")
    except Invalid as e:
        return await show(visit, None, e.message, e.status)
    return await show(visit, outcome)
