"""The lists of the pages as CSV: all of what they are narrowed to, not the page that is shown alone."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, NamedTuple

from llmproxy.errors import Invalid
from llmproxy.proxy.own_response import NOSNIFF
from llmproxy.web.admin.pages.forms import labels_of
from llmproxy.web.admin.pages.project_choice import chosen_project
from llmproxy.web.admin.visit import QueryValue, Visit
from llmproxy.web.csv_cells import CSV, csv_lines
from llmproxy.web.respond import NO_STORE, StreamedResponse

PAGE_SIZE = 500  # rows that are read at a time


class ExportedList(NamedTuple):
    """A list of the management API, as CSV.

    @ivar filters: What of a page's query narrows it; C{columns}: what of each item is in a line.
    """

    path: str
    filters: Sequence[str]
    columns: Sequence[str]


_OF_LIMITS = ("requests_per_minute", "tokens_per_minute", "concurrency", "budget_usd", "budget_tokens")
EXPORTS = {
    "/admin/projects.csv": ExportedList(
        "/manage/projects",
        ("search", "active", "label"),
        ("id", "name", "active", "group_id", "labels", *_OF_LIMITS, "created_at"),
    ),
    "/admin/tokens.csv": ExportedList(
        "/manage/tokens",
        ("search", "active", "label", "project_id"),
        ("id", "name", "project_id", "state", "labels", "request_count", "max_requests", *_OF_LIMITS, "created_at",
         "last_used_at", "expires_at"),
    ),
    "/admin/alerts.csv": ExportedList(
        "/manage/alerts",
        ("owner", "owner_id", "project_id"),
        ("at", "type", "threshold", "soft", "owner", "owner_id", "name", "project_id", "budget", "period", "allowed",
         "spent", "percent", "ends_at", "delivered_at"),
    ),
    "/admin/requests.csv": ExportedList(
        "/manage/requests",
        ("project_id", "token_id", "api", "model", "status", "outcome", "error"),
        ("started_at", "request_id", "project_id", "token_id", "method", "path", "api", "model", "answered", "status",
         "outcome", "error", "stream", "cache", "first_byte", "duration", "attempts", "input_tokens", "cached_tokens",
         "output_tokens", "cost_usd", "client", "user_agent"),
    ),
}  # fmt: skip


async def export(visit: Visit) -> StreamedResponse:
    """The list at this path, a line for each item, written while it is read."""
    listed = EXPORTS[visit.path]
    wanted: dict[str, QueryValue] = {name: visit.query.get(name, "").strip() for name in listed.filters}
    if "label" in wanted:
        wanted["label"] = labels_of(visit.query.get("label", ""))
    if "project_id" in wanted:
        project = await chosen_project(visit, offer=False)
        if project.problem:
            raise Invalid(project.problem)
        wanted["project_id"] = project.id
    first = await visit.api.get(listed.path, limit=PAGE_SIZE, **wanted)
    name = visit.path.rpartition("/")[2]
    disposition = f'Content-Disposition: attachment; filename="{name}"'.encode("ascii")
    parts = _parts(visit, listed, wanted, first)
    return StreamedResponse(200, parts, (CSV, NO_STORE, NOSNIFF, disposition), parts.aclose)


async def _parts(
    visit: Visit, listed: ExportedList, wanted: Mapping[str, QueryValue], page: dict[str, Any]
) -> AsyncGenerator[bytes, None]:
    yield csv_lines([listed.columns])
    while page["data"]:
        yield csv_lines([[item.get(name) for name in listed.columns] for item in page["data"]])
        if not page["next_cursor"]:
            return
        page = await visit.api.get(listed.path, limit=PAGE_SIZE, cursor=page["next_cursor"], **wanted)
