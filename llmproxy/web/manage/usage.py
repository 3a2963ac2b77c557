"""C{/manage/usage}: what was used, and what that cost."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import date
from functools import partial
from typing import Any

from llmproxy.errors import Invalid
from llmproxy.ledger.reports import GROUP_NAMES, SUM_NAMES, ReportRows, UsageQuery
from llmproxy.proxy.own_response import NOSNIFF, BufferedResponse
from llmproxy.web.manage.endpoint import Call, Endpoint, UsageReports, operation
from llmproxy.web.manage.paging import PAGE_PARAMETERS, page, project, query
from llmproxy.web.manage.views import UsageReport
from llmproxy.web.respond import NO_STORE, StreamedResponse, json_response

REPORT_PARAMETERS = ("group_by", "from", "to", "format", *PAGE_PARAMETERS)
COLUMN_NAMES = {"project": "project_id", "token": "token_id"}  # of a group's column; all others have the group's own

_CSV = b"Content-Type: text/csv; charset=utf-8; header=present"
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet may take for one


class UsageTotals(Endpoint):
    path = "/manage/usage"

    @operation(
        "GET",
        "Tokens and cost, added up by project, token, API, model, day or month; in JSON or CSV.",
        UsageReport,
        query=(*REPORT_PARAMETERS, "project_id"),
    )
    async def report_usage(self, call: Call) -> BufferedResponse | StreamedResponse:
        found = query(call.uri, call.operation.query)
        return await _answer(self.context.usage, found, call.principal.narrowed(project(found)))


class ProjectUsage(Endpoint):
    path = "/manage/projects/{id}/usage"

    @operation("GET", "The same of one project.", UsageReport, query=REPORT_PARAMETERS)
    async def report_project_usage(self, call: Call) -> BufferedResponse | StreamedResponse:
        found = query(call.uri, call.operation.query)
        await self.context.projects.get_project_by_id(call.id)
        return await _answer(self.context.usage, found, (call.id,))


async def _answer(
    usage: UsageReports, found: dict[str, str], projects: tuple[str, ...] | None
) -> BufferedResponse | StreamedResponse:
    question = UsageQuery(_groups(found), _day(found, "from"), _day(found, "to"), projects, page(found))
    shown_as = found.get("format", "json")
    if shown_as not in ("json", "csv"):
        raise Invalid("format: must be json or csv.")
    if shown_as == "csv" and not found.keys() & set(PAGE_PARAMETERS):
        return await _whole(question.by, await usage.export(question))
    answer = await usage.report(question)
    if shown_as == "csv":
        lines = (b"X-Next-Cursor: " + answer.next_cursor.encode(),) if answer.next_cursor else ()
        return BufferedResponse(200, as_csv(question.by, answer.items, heading=True), (_CSV, NO_STORE, NOSNIFF, *lines))
    shown = [{COLUMN_NAMES.get(name, name): value for name, value in row.items()} for row in answer.items]
    for row in shown:
        row["cost_usd"] = round(row["cost_usd"], 12)
    return json_response({"data": shown, "total": answer.total, "next_cursor": answer.next_cursor or None})


async def _whole(by: Sequence[str], rows: ReportRows) -> StreamedResponse:
    """All of a report; once its first rows are there."""
    render = partial(as_csv, by)

    async def parts(part: bytes) -> AsyncIterator[bytes]:
        yield as_csv(by, (), heading=True)
        while part:
            yield part
            part = await rows.part(render)

    try:
        first = await rows.part(render)
    except Exception:
        await rows.close()
        raise
    return StreamedResponse(200, parts(first), (_CSV, NO_STORE, NOSNIFF), rows.close)


def _groups(found: Mapping[str, str]) -> tuple[str, ...]:
    asked = found.get("group_by", "project")
    names = tuple(name for name in asked.split(",") if name) if asked else ()
    if len(set(names)) < len(names) or not set(names) <= set(GROUP_NAMES) or {"day", "month"} <= set(names):
        raise Invalid(
            f"group_by: must be some of {', '.join(GROUP_NAMES)}, with commas between; not both day and month."
        )
    return names


def _day(found: Mapping[str, str], name: str) -> str:
    given = found.get(name, "")
    try:
        if not given or date.fromisoformat(given).isoformat() == given:
            return given
    except ValueError:
        pass
    raise Invalid(f"{name}: must be a day such as 2026-11-25, in UTC.")


def as_csv(by: Sequence[str], rows: Sequence[Mapping[str, Any]], *, heading: bool = False) -> bytes:
    """As RFC 4180 has it; text that a spreadsheet would take for a formula has a quote before it."""
    text = io.StringIO()
    writer = csv.writer(text)
    if heading:
        writer.writerow([*(COLUMN_NAMES.get(name, name) for name in by), *SUM_NAMES])
    writer.writerows([_cell(row[name]) for name in (*by, *SUM_NAMES)] for row in rows)
    return text.getvalue().encode("utf-8", "replace")


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.12f}".rstrip("0").rstrip(".")
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else str(value)
