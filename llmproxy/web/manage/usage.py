"""C{/manage/usage}: what was used, and what that cost."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from datetime import date
from functools import partial
from typing import Any

from llmproxy.base.attribution import CLAIMED
from llmproxy.errors import Invalid
from llmproxy.ledger.reports import ATTRIBUTED, GROUP_NAMES, SUM_NAMES, ReportRows, UsageQuery
from llmproxy.proxy.own_response import NOSNIFF, BufferedResponse
from llmproxy.web.csv_cells import CSV, csv_cell
from llmproxy.web.manage.endpoint import Call, Endpoint, ManagementContext, operation
from llmproxy.web.manage.focus import FOCUS_GROUPS, FocusRows
from llmproxy.web.manage.paging import PAGE_PARAMETERS, page, query
from llmproxy.web.manage.project_filter import PROJECT_PARAMETERS, wanted_projects
from llmproxy.web.manage.views import UsageReport
from llmproxy.web.respond import NO_STORE, StreamedResponse, json_response

REPORT_PARAMETERS = ("group_by", "from", "to", "format", *PAGE_PARAMETERS)
COLUMN_NAMES = {"project": "project_id", "token": "token_id"}  # of a group's column; all others have the group's own


class UsageTotals(Endpoint):
    path = "/manage/usage"

    @operation(
        "GET",
        "Tokens and cost by project, group, token, API, model, day, month or an attribution, as JSON, CSV or FOCUS.",
        UsageReport,
        query=(*REPORT_PARAMETERS, *PROJECT_PARAMETERS),
    )
    async def report_usage(self, call: Call) -> BufferedResponse | StreamedResponse:
        found = query(call.uri, call.operation.query)
        return await _answer(self.context, found, await wanted_projects(self.context.projects, call.principal, found))


class ProjectUsage(Endpoint):
    path = "/manage/projects/{id}/usage"

    @operation("GET", "The same of one project.", UsageReport, query=REPORT_PARAMETERS)
    async def report_project_usage(self, call: Call) -> BufferedResponse | StreamedResponse:
        found = query(call.uri, call.operation.query)
        await self.context.projects.get_project_by_id(call.id)
        return await _answer(self.context, found, (call.id,))


async def _answer(
    context: ManagementContext, found: dict[str, str], projects: tuple[str, ...] | None
) -> BufferedResponse | StreamedResponse:
    usage, shown_as = context.usage, found.get("format", "json")
    if shown_as == "focus":
        if clashing := found.keys() & {"group_by", *PAGE_PARAMETERS}:
            said = "is not for focus, which has rows of its own, and all of them."
            raise Invalid.part("parameter", min(clashing), said)
        focus, charges = (
            FocusRows(context.providers()),
            UsageQuery(FOCUS_GROUPS, _day(found, "from"), _day(found, "to"), projects),
        )
        return await _whole(focus.heading(), focus.render, await usage.export(charges))
    by, attribution = _groups(found, context.attributions())
    question = UsageQuery(by, _day(found, "from"), _day(found, "to"), projects, page(found), attribution)
    if shown_as not in ("json", "csv"):
        raise Invalid.part("parameter", "format", "must be json, csv or focus.")
    if shown_as == "csv" and not found.keys() & set(PAGE_PARAMETERS):
        heading, render = as_csv(question, (), heading=True), partial(raw_as_csv, question)
        return await _whole(heading, render, await usage.export(question))
    answer = await usage.report(question)
    if shown_as == "csv":
        lines = (b"X-Next-Cursor: " + answer.next_cursor.encode(),) if answer.next_cursor else ()
        return BufferedResponse(200, as_csv(question, answer.items, heading=True), (CSV, NO_STORE, NOSNIFF, *lines))
    shown = [{column_name(question, name): _shown(name, value) for name, value in row.items()} for row in answer.items]
    for row in shown:
        row["cost_usd"] = round(row["cost_usd"], 12)
    return json_response({"data": shown, "total": answer.total, "next_cursor": answer.next_cursor or None})


def column_name(question: UsageQuery, column: str) -> str:
    """What the report calls one of the ledger's columns."""
    if column in ATTRIBUTED:
        return question.attribution if column == ATTRIBUTED[0] else "claimed"
    return COLUMN_NAMES.get(column, column)


def _shown(column: str, value: Any) -> Any:
    return value == CLAIMED if column == ATTRIBUTED[1] else value


async def _whole(
    heading: bytes, render: Callable[[Sequence[Sequence[Any]]], bytes], rows: ReportRows
) -> StreamedResponse:
    """All of a report; once its first rows are there."""

    async def parts(part: bytes) -> AsyncIterator[bytes]:
        yield heading
        while part:
            yield part
            part = await rows.part(render)

    try:
        first = await rows.part(render)
    except Exception:
        await rows.close()
        raise
    return StreamedResponse(200, parts(first), (CSV, NO_STORE, NOSNIFF), rows.close)


def _groups(found: Mapping[str, str], attributions: Collection[str]) -> tuple[tuple[str, ...], str]:
    """What is to be told apart, and which of that is an attribution; C{""} where none is."""
    asked = found.get("group_by", "project")
    names = tuple(name for name in asked.split(",") if name) if asked else ()
    known = (*GROUP_NAMES, *attributions)
    if len(set(names)) < len(names) or not set(names) <= set(known) or {"day", "month"} <= set(names):
        raise Invalid.part(
            "parameter", "group_by", f"must be some of {', '.join(known)}, with commas between; not both day and month."
        )
    of_requests = [name for name in names if name in attributions]
    if len(of_requests) > 1 or (of_requests and "token" in names):
        raise Invalid.part(
            "parameter", "group_by", "tells the values of one attribution apart at a time, and not its tokens."
        )
    return names, "".join(of_requests)


def _day(found: Mapping[str, str], name: str) -> str:
    given = found.get(name, "")
    try:
        if not given or date.fromisoformat(given).isoformat() == given:
            return given
    except ValueError:
        pass
    raise Invalid.part("parameter", name, "must be a day such as 2026-11-25, in UTC.")


def raw_as_csv(question: UsageQuery, rows: Sequence[Sequence[Any]]) -> bytes:
    """As L{as_csv}, of rows as L{ReportRows.part} has them, without a heading.

    By columns, and each value once: of a million rows, cell by cell takes several times as long.
    """
    columns: list[Iterable[Any]] = []
    for name, column in zip((*question.columns, *SUM_NAMES), zip(*rows, strict=True), strict=True):
        if name in SUM_NAMES and name != "cost_usd":
            columns.append(column)
            continue
        shown = {value: csv_cell(float(value) if name == "cost_usd" else _shown(name, value)) for value in set(column)}
        columns.append(map(shown.__getitem__, column))
    text = io.StringIO()
    csv.writer(text).writerows(zip(*columns, strict=True))
    return text.getvalue().encode("utf-8", "replace")


def as_csv(question: UsageQuery, rows: Sequence[Mapping[str, Any]], *, heading: bool = False) -> bytes:
    """As RFC 4180 has it; text that a spreadsheet would take for a formula has a quote before it."""
    text = io.StringIO()
    writer = csv.writer(text)
    if heading:
        writer.writerow([*(column_name(question, name) for name in question.columns), *SUM_NAMES])
    writer.writerows([csv_cell(_shown(name, row[name])) for name in (*question.columns, *SUM_NAMES)] for row in rows)
    return text.getvalue().encode("utf-8", "replace")
