"""C{/manage/usage}: what was used, and what that cost."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, ClassVar

from llmproxy.errors import Invalid
from llmproxy.ledger.sql import GROUPS, SUMS, Question, Report
from llmproxy.web.manage.endpoint import Call, Endpoint, Operation
from llmproxy.web.manage.paging import page, project, query
from llmproxy.web.manage.views import UsageReport
from llmproxy.web.respond import NO_STORE, NOSNIFF, Answer, as_json

QUERY = ("group_by", "from", "to", "format", "limit", "offset")
NAMES = {"project": "project_id", "token": "token_id"}  # of a group's column; all others have the group's own

_CSV = b"Content-Type: text/csv; charset=utf-8; header=present"
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet may take for one


class Usage(Endpoint):
    path = "/manage/usage"
    operations: ClassVar = {
        b"GET": Operation(
            "report_usage",
            "Tokens and cost, added up by project, token, API, model, day or month; in JSON or CSV.",
            UsageReport,
            query=(*QUERY, "project_id"),
        )
    }

    async def report_usage(self, call: Call) -> Answer:
        found = query(call.request.uri, call.operation.query)
        return await _answer(call, self.desk.usage.report, found, project(found) or "")


class ProjectUsage(Endpoint):
    path = "/manage/projects/{id}/usage"
    operations: ClassVar = {
        b"GET": Operation("report_project_usage", "The same of one project.", UsageReport, query=QUERY)
    }

    async def report_project_usage(self, call: Call) -> Answer:
        found = query(call.request.uri, call.operation.query)
        await self.desk.projects.get_project_by_id(call.id)
        return await _answer(call, self.desk.usage.report, found, call.id)


async def _answer(call: Call, report: Any, found: dict[str, str], project_id: str) -> Answer:
    part = page(found)
    question = Question(_groups(found), _day(found, "from"), _day(found, "to"), project_id, part.limit, part.offset)
    shown_as = found.get("format", "json")
    if shown_as not in ("json", "csv"):
        raise Invalid("format: must be json or csv.")
    answer: Report = await report(question)
    rows = [{NAMES.get(name, name): value for name, value in row.items()} for row in answer.rows]
    if shown_as == "csv":
        columns = [*(NAMES.get(name, name) for name in question.by), *SUMS]
        return Answer(200, as_csv(columns, rows), (_CSV, NO_STORE, NOSNIFF))
    for row in rows:
        row["cost_usd"] = round(row["cost_usd"], 12)
    return as_json({"data": rows, "total": answer.total})


def _groups(found: Mapping[str, str]) -> tuple[str, ...]:
    asked = found.get("group_by", "project")
    names = tuple(name for name in asked.split(",") if name) if asked else ()
    if len(set(names)) < len(names) or not set(names) <= set(GROUPS) or {"day", "month"} <= set(names):
        raise Invalid(f"group_by: must be some of {', '.join(GROUPS)}, with commas between; not both day and month.")
    return names


def _day(found: Mapping[str, str], name: str) -> str:
    given = found.get(name, "")
    try:
        if not given or date.fromisoformat(given).isoformat() == given:
            return given
    except ValueError:
        pass
    raise Invalid(f"{name}: must be a day such as 2026-11-25, in UTC.")


def as_csv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> bytes:
    """As RFC 4180 has it; text that a spreadsheet would take for a formula has a quote before it."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows([_cell(row[name]) for name in columns] for row in rows)
    return text.getvalue().encode("utf-8", "replace")


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.12f}".rstrip("0").rstrip(".")
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else str(value)
