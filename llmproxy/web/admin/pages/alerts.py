"""Alerts of budgets: all of them, and those that matter still, for the pages of what they belong to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmproxy.errors import Invalid, NotFound
from llmproxy.web.admin.formats import parsed
from llmproxy.web.admin.pages.forms import NOTHING_FOUND
from llmproxy.web.admin.pages.names import project_names
from llmproxy.web.admin.pages.project_choice import chosen_project
from llmproxy.web.admin.visit import HtmlPage, Visit

PAGE_SIZE = 50
MAX_CURRENT = 100  # of the latest alerts, of which those of periods that go on are shown elsewhere
FILTERS = ("owner", "owner_id")
OWNERS = ("token", "project", "group", "api")


async def show_all(visit: Visit) -> HtmlPage:
    project = await chosen_project(visit)
    wanted = {name: visit.query.get(name, "").strip() for name in FILTERS} | {"project_id": project.id}
    problem, found, status = project.problem, NOTHING_FOUND, 422 if project.problem else 200
    try:
        found = await visit.api.get("/manage/alerts", limit=PAGE_SIZE, cursor=visit.query.get("cursor", ""), **wanted)
    except Invalid as e:
        problem, status = problem or e.message, e.status
    values = {
        "alerts": [{**each, "grave": is_grave(each)} for each in found["data"]],
        "next_cursor": found["next_cursor"],
        "wanted": wanted,
        "project": project,
        "owners": OWNERS,
        "names": await project_names(visit, [each["project_id"] for each in found["data"]]),
        "problem": problem,
    }
    return HtmlPage("alerts.html", values, status)


async def current_alerts(visit: Visit, **wanted: str) -> list[dict[str, Any]]:
    """The latest alert of each budget whose period goes on; none for who may not see them.

    @param wanted: As of C{GET /manage/alerts}.
    """
    if not visit.principal.may("list_alerts"):
        return []
    try:
        found = await visit.api.get("/manage/alerts", limit=MAX_CURRENT, **wanted)
    except NotFound:
        return []
    return latest_of_budgets(found["data"], visit.now)


def latest_of_budgets(alerts: Sequence[Mapping[str, Any]], now: float) -> list[dict[str, Any]]:
    """The latest alert of each budget whose period goes on, each with whether it is C{grave}: requests are refused.
    Those come first, then those of which most is spent.

    @param alerts: The latest first.
    """
    latest: dict[tuple[Any, ...], dict[str, Any]] = {}
    for alert in alerts:
        if alert["ends_at"] is None or parsed(alert["ends_at"]).timestamp() > now:
            of = tuple(alert[name] for name in ("owner", "owner_id", "budget", "period", "allowed"))
            kept = latest.setdefault(of, {**alert, "grave": False})
            kept["grave"] = kept["grave"] or is_grave(alert)
    return sorted(latest.values(), key=lambda each: (not each["grave"], -each["percent"]))


def is_grave(alert: Mapping[str, Any]) -> bool:
    """Whether requests are refused because of it."""
    return alert["type"] == "budget.refusal" or (not alert["soft"] and (alert["threshold"] or 0) >= 100)


def in_force(
    alerts: Sequence[Mapping[str, Any]], owner_id: str, limits: Sequence[Mapping[str, Any]] | None
) -> list[Any]:
    """These, without those of budgets that their owner has no more, or not as they were then.

    @param limits: How the owner's limits stand; C{None} where that is not known.
    """
    if limits is None:
        return list(alerts)
    there = {(each["limit"], each["period"], each["allowed"]) for each in limits}
    return [
        each
        for each in alerts
        if each["owner_id"] != owner_id or (each["budget"], each["period"], each["allowed"]) in there
    ]
