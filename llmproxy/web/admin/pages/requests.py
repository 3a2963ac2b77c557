"""The last requests, and one with its times."""

from __future__ import annotations

from typing import Any

from llmproxy.errors import Invalid
from llmproxy.web.admin.pages.names import project_names
from llmproxy.web.admin.visit import HtmlPage, Visit

LIMIT = 100
FILTERS = ("project_id", "token_id", "api", "model", "status", "outcome", "error")


async def show_all(visit: Visit) -> HtmlPage:
    wanted = {name: visit.query.get(name, "").strip() for name in FILTERS}
    problem, found = "", []
    try:
        found = (await visit.api.get("/manage/requests", limit=LIMIT, **wanted))["data"]
    except Invalid as e:
        problem = e.message
    values = {
        "requests": found,
        "wanted": wanted,
        "problem": problem,
        "names": await project_names(visit, [each["project_id"] for each in found]),
        "limit": LIMIT,
    }
    return HtmlPage("requests.html", values, 422 if problem else 200)


async def show(visit: Visit) -> HtmlPage:
    found = await visit.api.get(f"/manage/requests/{visit.arguments[0]}")
    names = await project_names(visit, [found["project_id"]])
    return HtmlPage("request.html", {"request": found, "steps": timeline(found), "names": names})


def timeline(request: dict[str, Any]) -> list[dict[str, Any]]:
    """What its time went into, in seconds from its arrival: where each step began, and how long it took."""
    whole, first, upstream = request["duration"], request["first_byte"], request["upstream_time"]
    if first is None:
        return [{"name": "in this proxy", "begin": 0.0, "length": whole, "kind": "c3"}]
    waited = min(first, upstream) if upstream is not None else first
    steps = [
        {"name": "in this proxy: credentials, limits, waiting for a connection", "begin": 0.0,
         "length": max(0.0, first - waited), "kind": "c3"},
        {"name": "waiting for the provider's first byte", "begin": first - waited, "length": waited, "kind": "c1"},
        {"name": "receiving and forwarding", "begin": first, "length": max(0.0, whole - first), "kind": "c2"},
    ]  # fmt: skip
    return steps
