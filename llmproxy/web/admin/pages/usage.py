"""The usage explorer: what the ledger adds up to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from llmproxy.errors import Invalid
from llmproxy.proxy.own_response import BufferedResponse
from llmproxy.web.admin import formats
from llmproxy.web.admin.pages.names import group_names, project_names, token_names
from llmproxy.web.admin.pages.project_choice import chosen_project
from llmproxy.web.admin.plots import Series, bar_plot
from llmproxy.web.admin.visit import HtmlPage, Visit
from llmproxy.web.respond import StreamedResponse

GROUPS = ("project", "group", "token", "api", "model", "day", "month")
COLUMNS = {"project": "project_id", "group": "group_id", "token": "token_id"}
PAGE_SIZE = 100


async def show(visit: Visit) -> HtmlPage:
    attributions = await _attributions(visit)
    all_groups = (*GROUPS, *attributions)
    project = await chosen_project(visit)
    wanted = _wanted(visit, all_groups, project.id)
    problem = project.problem
    report: dict[str, Any] = {"data": [], "total": 0, "next_cursor": None}
    try:
        report = await visit.api.get("/manage/usage", limit=PAGE_SIZE, cursor=visit.query.get("cursor", ""), **wanted)
    except Invalid as e:
        problem = problem or e.message
    groups = wanted["group_by"].split(",") if wanted["group_by"] else []
    rows = report["data"]
    projects = [row["project_id"] for row in rows if row.get("project_id")]
    return HtmlPage(
        "usage.html",
        {
            "wanted": wanted,
            "project": project,
            "groups": groups,
            "columns": [COLUMNS.get(name, name) for name in groups],
            "attributions": attributions,
            "all_groups": all_groups,
            "report": report,
            "rows": rows,
            "problem": problem,
            "names": await project_names(visit, projects),
            "token_names": await token_names(visit, [row["token_id"] for row in rows if row.get("token_id")]),
            "group_names": await group_names(visit, [row["group_id"] for row in rows if row.get("group_id")]),
            "plots": _plots(groups, rows) if rows else [],
            "sums": _sums(rows),
        },
        422 if problem else 200,
    )


async def export(visit: Visit) -> BufferedResponse | StreamedResponse:
    project = await chosen_project(visit, offer=False)
    if project.problem:
        raise Invalid(project.problem)
    wanted = _wanted(visit, (*GROUPS, *await _attributions(visit)), project.id)
    response = await visit.api.raw("/manage/usage", format="csv", **wanted)
    name = b'Content-Disposition: attachment; filename="usage.csv"'
    if isinstance(response, StreamedResponse):
        return StreamedResponse(response.code, response.parts, (*response.lines, name), response.close)
    return BufferedResponse(response.code, response.body, (*response.lines, name))


async def _attributions(visit: Visit) -> list[str]:
    document = await visit.api.get("/manage/apis")
    return list(document["attributions"])


def _wanted(visit: Visit, known: Sequence[str], project_id: str) -> dict[str, str]:
    today = datetime.fromtimestamp(visit.now, UTC).date()
    query = visit.query
    if "by" in query or "from" in query:
        groups = ",".join(name for name in known if name in query.get("by", "").split(",") or query.get(f"by_{name}"))
    else:
        groups = ",".join(name for name in known if query.get(f"by_{name}")) or "model"
    return {
        "group_by": groups,
        "from_": query.get("from", today.replace(day=1).isoformat()),
        "to": query.get("to", (today + timedelta(days=1)).isoformat()),
        "project_id": project_id,
    }


def _plots(groups: list[str], rows: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Spend and tokens by day or month, where that is all it is grouped by: what the table below them says."""
    if groups not in (["day"], ["month"]):
        return []
    labels = [formats.period_label(row[groups[0]]) for row in rows]

    def series(name: str, css_class: str, column: str) -> Series:
        return Series(name, css_class, [row[column] for row in rows])

    plots = (
        ("Spend", formats.usd_tick, [series("spend", "c1", "cost_usd")]),
        ("Tokens", formats.compact, [series("input", "c1", "input_tokens"), series("output", "c2", "output_tokens")]),
    )
    return [
        {"title": title, "series": each, "picture": bar_plot(title, labels, each, shown)}
        for title, shown, each in plots
    ]


def _sums(rows: list[Mapping[str, Any]]) -> dict[str, float]:
    names = ("requests", "failed", "input_tokens", "cached_tokens", "output_tokens", "cost_usd")
    return {name: sum(row[name] for row in rows) for name in names}
