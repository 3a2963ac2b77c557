"""The last requests, and one with its times."""

from __future__ import annotations

from typing import Any

from llmproxy.errors import Invalid
from llmproxy.web.admin.pages.names import project_names, token_names
from llmproxy.web.admin.pages.project_choice import chosen_project
from llmproxy.web.admin.visit import HtmlPage, Visit

LIMIT = 100
STEP_NAMES = {
    "scheduler": "waiting to be begun",
    "auth": "credential and policies",
    "body": "its body, as far as that must be known",
    "cache": "the cache",
    "limits": "its limits",
    "turn": "waiting for its turn at the limits",
    "admission": "the provider's key and a slot",
    "connection": "waiting for a connection to upstream {upstream}",
    "attempt": "upstream {upstream}, key {key}",
    "pause": "pause before the next attempt",
    "response": "receiving and forwarding",
}
STEP_KINDS = {
    **dict.fromkeys(("scheduler", "turn", "connection", "pause"), "c3"),  # it waits
    "attempt": "c1",
    "response": "c2",
}
FILTERS = ("token_id", "api", "model", "status", "outcome", "error")


async def show_all(visit: Visit) -> HtmlPage:
    project = await chosen_project(visit)
    wanted = {name: visit.query.get(name, "").strip() for name in FILTERS} | {"project_id": project.id}
    problem, found = project.problem, []
    try:
        found = (await visit.api.get("/manage/requests", limit=LIMIT, **wanted))["data"]
    except Invalid as e:
        problem = problem or e.message
    values = {
        "requests": found,
        "wanted": wanted,
        "project": project,
        "problem": problem,
        "names": await project_names(visit, [each["project_id"] for each in found]),
        "limit": LIMIT,
        "live": visit.query.get("live") == "1",
    }
    return HtmlPage("requests.html", values, 422 if problem else 200)


async def show(visit: Visit) -> HtmlPage:
    found = await visit.api.get(f"/manage/requests/{visit.arguments[0]}")
    names = await project_names(visit, [found["project_id"]])
    tokens = await token_names(visit, [found["token_id"]])
    values = {"request": found, "rows": timeline_rows(found), "names": names, "token_names": tokens}
    return HtmlPage("request.html", values)


def timeline_rows(request: dict[str, Any]) -> list[dict[str, Any]]:
    """What its time went into, as it is shown, with the moments of its first byte and its end.

    C{kind} is the colour; C{left} and C{width} say where it stands in its whole time, in percent.
    """
    whole = request["duration"] or 1.0
    rows = []
    for step in request["timeline"]:
        if step["step"] == "response":
            rows.append(_moment("first byte", step["at"], whole))
        name = STEP_NAMES[step["step"]].format(**step)
        left = min(100 * step["at"] / whole, 99.6)
        width = max(min(100 * step["seconds"] / whole, 100 - left), 0.4)
        rows.append({**step, "name": name, "kind": STEP_KINDS.get(step["step"], "c0"), "left": left, "width": width})
    return [*rows, _moment("end", request["duration"], whole)]


def _moment(name: str, at: float, whole: float) -> dict[str, Any]:
    left = min(100 * at / whole, 99.6)
    return {"name": name, "at": at, "seconds": None, "kind": "moment", "left": left, "width": 0.4, "result": None}
