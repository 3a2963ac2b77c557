"""The overview: what went on in a period, beside the period before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmproxy.observability.activity import PERIODS
from llmproxy.web.admin import formats
from llmproxy.web.admin.pages.alerts import current_alerts
from llmproxy.web.admin.pages.names import project_names
from llmproxy.web.admin.pages.project_choice import chosen_project
from llmproxy.web.admin.plots import Series, bar_plot, line_plot
from llmproxy.web.admin.visit import HtmlPage, Visit

MAX_TOP = 6  # rows of the short lists
MAX_ALERTS = 3


async def show(visit: Visit) -> HtmlPage:
    period = visit.query.get("period", "24h")
    period = period if period in PERIODS else "24h"
    chosen = await chosen_project(visit)
    project = chosen.id
    report = await visit.api.get("/manage/activity", period=period, project_id=project)
    wanted: dict[str, str | int] = {"period": period, "project_id": project, "limit": MAX_TOP}
    top = {by: (await visit.api.get("/manage/activity/top", by=by, **wanted))["data"] for by in ("model", "project")}
    alerts = await current_alerts(visit, **({"project_id": project} if project else {}))
    projects = [row["name"] for row in top["project"]] + [each["project_id"] for each in alerts[:MAX_ALERTS]]
    return HtmlPage(
        "overview.html",
        {
            "alerts": alerts,
            "period": period,
            "periods": tuple(PERIODS),
            "project_id": project,
            "project": chosen,
            "report": report,
            "total": report["total"],
            "before": report["before"],
            "plots": activity_plots(report),
            "top": top,
            "names": await project_names(visit, projects),
        },
    )


def activity_plots(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each with its title, picture, legend and the table that says the same."""
    points: Sequence[Mapping[str, Any]] = report["points"]
    labels = [formats.label(point["at"], report["step_seconds"]) for point in points]

    def values(name: str) -> list[float | None]:
        return [point[name] for point in points]

    fine = [point["requests"] - point["failed"] - point["refused"] for point in points]
    requests = (
        Series("answered", "c1", fine),
        Series("refused", "c3", values("refused")),
        Series("failed", "c4", values("failed")),
    )
    tokens = (Series("input", "c1", values("input_tokens")), Series("output", "c2", values("output_tokens")))
    spend = (Series("spend", "c1", values("cost_usd")),)
    times = (Series("p50", "c1", values("first_byte_p50")), Series("p95", "c2", values("first_byte_p95")))
    return [
        _plot("Requests", bar_plot, labels, requests, formats.compact),
        _plot("Spend", bar_plot, labels, spend, formats.usd_tick),
        _plot("Tokens", bar_plot, labels, tokens, formats.compact),
        _plot("Time to the first byte", line_plot, labels, times, formats.seconds),
    ]


def _plot(title: str, draw: Any, labels: Sequence[str], series: Sequence[Series], shown: Any) -> dict[str, Any]:
    rows = [
        (label, [shown(each.values[at]) for each in series])
        for at, label in enumerate(labels)
        if any(each.values[at] for each in series)
    ]
    return {
        "title": title,
        "picture": draw(title, labels, series, shown),
        "series": series,
        "rows": rows,
        "empty": not rows,
    }
