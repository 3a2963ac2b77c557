"""Groups of projects: the tree, and one with how its limits stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmproxy.errors import Conflict, Invalid
from llmproxy.errors.management import PreconditionFailed
from llmproxy.web.admin.pages.alerts import current_alerts, in_force
from llmproxy.web.admin.pages.form_problems import problem_text
from llmproxy.web.admin.pages.forms import CHANGED_MEANWHILE, LIMIT_FIELDS, NOTHING_FOUND, limit_values
from llmproxy.web.admin.visit import HtmlPage, Redirect, Result, Visit, segment

MAX_SHOWN = 1000  # groups of the tree
PAGE_SIZE = 50  # groups that a search has found


async def all_groups(visit: Visit) -> list[dict[str, Any]]:
    """All groups, each behind the one that it belongs to, with how deep it is; none for who may not see them."""
    if not visit.principal.may("list_groups"):
        return []
    found = await visit.api.get("/manage/groups", limit=MAX_SHOWN)
    return as_tree(found["data"])


def as_tree(groups: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The same groups, each behind the one that it belongs to, with its C{depth}."""
    known = {group["id"] for group in groups}
    below: dict[str, list[Mapping[str, Any]]] = {}
    for group in groups:
        parent = group["parent_id"] or ""
        below.setdefault(parent if parent in known else "", []).append(group)
    listed: list[dict[str, Any]] = []
    waiting = [(group, 0) for group in reversed(below.get("", []))]
    while waiting:
        group, depth = waiting.pop()
        listed.append({**group, "depth": depth})
        waiting += [(each, depth + 1) for each in reversed(below.get(group["id"], []))]
    return listed


async def show_all(visit: Visit, problem: str = "", status: int = 200) -> HtmlPage:
    """The tree; of a search, what it found, each with where in the tree it is."""
    visit.principal.require("list_groups")
    search = visit.query.get("search", "").strip()
    tree, found = await all_groups(visit), NOTHING_FOUND
    if search:
        cursor = visit.query.get("cursor", "")
        try:
            found = await visit.api.get("/manage/groups", search=search, limit=PAGE_SIZE, cursor=cursor)
        except Invalid as e:
            problem, status = problem or e.message, max(status, e.status)
    values = {
        "groups": tree,
        "wanted": {"search": search},
        "found": found,
        "paths": paths(tree),
        "alerts": await current_alerts(visit, owner="group"),
        "most": MAX_SHOWN,
        "problem": problem,
        "form": visit.form,
    }
    return HtmlPage("groups.html", values, status)


def paths(tree: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Of each group by its id, those that it belongs to, the uppermost first.

    @param tree: As of L{as_tree}.
    """
    above: dict[str, list[Mapping[str, Any]]] = {}
    known = {group["id"]: group for group in tree}
    for group in tree:
        parent = known.get(group["parent_id"] or "")
        above[group["id"]] = [] if parent is None else [*above.get(parent["id"], []), parent]
    return above


async def create(visit: Visit) -> Result:
    body = {"name": visit.form.get("name", "").strip(), "parent_id": visit.form.get("parent_id") or None}
    limits = {name: value for name, value in limit_values(visit.form).items() if value}
    try:
        made = await visit.api.send("POST", "/manage/groups", {**body, **limits}, visit.form)
    except (Invalid, Conflict) as e:
        return await show_all(visit, problem_text(e), e.status)
    return Redirect(f"/admin/groups/{segment(made['id'])}", "group-created")


async def show(visit: Visit, problem: str = "", status: int = 200) -> HtmlPage:
    group, seen = await visit.api.get_tagged(f"/manage/groups/{visit.arguments[0]}")
    tree = await all_groups(visit)
    alerts = await current_alerts(visit, owner="group", owner_id=group["id"])
    values = {
        "group": group,
        "seen": seen,
        "above": paths(tree).get(group["id"], []),
        "alerts": in_force(alerts, group["id"], group["limits"]),
        "groups": tree,
        "limit_fields": LIMIT_FIELDS,
        "problem": problem,
        "form": visit.form,
    }
    return HtmlPage("group.html", values, status)


async def change(visit: Visit) -> Result:
    body = {"name": visit.form.get("name", "").strip(), "parent_id": visit.form.get("parent_id") or None}
    try:
        path = f"/manage/groups/{visit.arguments[0]}"
        await visit.api.send("PATCH", path, {**body, **limit_values(visit.form)}, visit.form)
    except (Invalid, Conflict) as e:
        return await show(visit, problem_text(e), e.status)
    except PreconditionFailed as e:
        return await show(visit, CHANGED_MEANWHILE, e.status)
    return Redirect(f"/admin/groups/{visit.arguments[0]}", "group-changed")


async def delete(visit: Visit) -> Result:
    try:
        await visit.api.send("DELETE", f"/manage/groups/{visit.arguments[0]}")
    except Conflict as e:
        return await show(visit, problem_text(e), e.status)
    return Redirect("/admin/groups", "group-deleted")
