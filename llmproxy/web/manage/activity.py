"""C{/manage/activity} and C{/manage/requests}: what goes on, and the last requests one by one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import Field

from llmproxy.base.attribution import as_shown
from llmproxy.base.timestamps import rfc3339
from llmproxy.errors import Invalid, NotFound
from llmproxy.model import RequestRecord
from llmproxy.observability.activity import GROUPS, PERIODS, Activity, ActivitySum
from llmproxy.observability.recent_requests import RequestFilter
from llmproxy.proxy.own_response import BufferedResponse
from llmproxy.web.manage.deferred_model import DeferredModel
from llmproxy.web.manage.endpoint import Call, Endpoint, operation
from llmproxy.web.manage.paging import MAX_PAGE_SIZE, PAGE_PARAMETERS, list_response, page, query
from llmproxy.web.manage.project_filter import PROJECT_PARAMETERS, wanted_projects
from llmproxy.web.manage.request_timeline import TimelineStep, timeline
from llmproxy.web.manage.views import Time
from llmproxy.web.respond import json_response

DEFAULT_PERIOD = "24h"
FILTERS = ("token_id", "api", "model", "status", "outcome", "error")


class ActivityPoint(DeferredModel):
    """What went on from a moment on, for as long as the report's step."""

    at: Time
    requests: int
    failed: int = Field(description="Ended in an error or broken off; those whose client left are not among them.")
    refused: int = Field(description="Not admitted by this proxy: credentials, policies, limits.")
    cache_hits: int
    input_tokens: int
    output_tokens: int
    cost_usd: float
    first_byte_p50: float | None = Field(description="Seconds to the first byte: half of the responses were as fast.")
    first_byte_p95: float | None


class ActivityView(DeferredModel):
    """What went on, over all processes that share the store."""

    period: str
    step_seconds: int
    points: list[ActivityPoint] = Field(description="Without gaps, oldest first.")
    total: ActivityPoint
    before: ActivityPoint = Field(description="The same of the period before.")


class AttributedValue(DeferredModel):
    """One value that a request is attributed to."""

    value: str
    claimed: bool = Field(description="Whether the client claims it; else its token's metadata fixes it.")


class RequestView(DeferredModel):
    """One finished request. Never a body; times in seconds."""

    request_id: str
    started_at: Time
    duration: float
    method: str
    path: str
    status: int
    outcome: str
    error: str
    api: str
    endpoint: str
    project_id: str
    token_id: str
    model: str
    answered: str
    stream: bool
    cache: str
    first_byte: float | None = Field(description="From the request's arrival to the provider's first byte.")
    upstream_time: float | None
    auth_time: float = Field(description="For its credential, the policies, and its body as far as that must be known.")
    queue_time: float = Field(description="For which it waited: to be begun, at its limits, for a connection.")
    upstream_status: int | None
    attempts: int = Field(description="How often it was sent to a provider.")
    attempted: str = Field(description="Where that was several times, what came of each: 0/1:429 1/0:200.")
    bytes_in: int
    bytes_out: int
    basis: str
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    cost_usd: float | None
    client: str
    user_agent: str
    attribution: dict[str, AttributedValue] = Field(description="By the names of the settings, where there is any.")


class RequestDetail(RequestView):
    """One finished request, with what its time went into."""

    timeline: list[TimelineStep] = Field(description="In their order; the last is from the first byte to the end.")


class RequestList(DeferredModel):
    """The last requests, the latest first."""

    data: list[RequestView]
    total: int | None = Field(description="Always null: they are not counted.")
    next_cursor: str | None = Field(description="Where the next page begins; null where this is the last.")


class ActivityGroup(ActivityPoint):
    """What went on with one project, API or model in the whole period."""

    name: str


class ActivityGroups(DeferredModel):
    """Those that most was spent on, the most first."""

    period: str
    data: list[ActivityGroup]


class ActivityReportEndpoint(Endpoint):
    path = "/manage/activity"

    @operation(
        "GET",
        "Requests, errors, tokens, spend and times to the first byte over a period, and of the one before.",
        ActivityView,
        query=("period", *PROJECT_PARAMETERS, "api"),
    )
    async def report_activity(self, call: Call) -> BufferedResponse:
        found = query(call.uri, call.operation.query)
        period, projects = _period(found), await wanted_projects(self.context.projects, call.principal, found)
        report = await _activity(self).report(period, projects, found.get("api", ""))
        return json_response(
            {
                "period": period,
                "step_seconds": report.step,
                "points": [_point(each) for each in report.points],
                "total": _point(report.total),
                "before": _point(report.before),
            }
        )


class MostActive(Endpoint):
    path = "/manage/activity/top"

    @operation(
        "GET",
        "The projects, APIs or models that most was spent on in a period.",
        ActivityGroups,
        query=("by", "period", "limit", *PROJECT_PARAMETERS, "api"),
    )
    async def report_most_active(self, call: Call) -> BufferedResponse:
        found = query(call.uri, call.operation.query)
        by = found.get("by", "model")
        if by not in GROUPS:
            raise Invalid.part("parameter", "by", f"must be one of {', '.join(GROUPS)}.")
        period, projects = _period(found), await wanted_projects(self.context.projects, call.principal, found)
        rows = await _activity(self).most_active(by, period, _limit(found, 10), projects, found.get("api", ""))
        return json_response({"period": period, "data": [{"name": name, **_point(values)} for name, values in rows]})


class RequestCollection(Endpoint):
    path = "/manage/requests"

    @operation(
        "GET",
        "The last requests, the latest first.",
        RequestList,
        query=(*PAGE_PARAMETERS, *PROJECT_PARAMETERS, *FILTERS),
    )
    async def list_requests(self, call: Call) -> BufferedResponse:
        found = query(call.uri, call.operation.query)
        if not re.fullmatch("([1-5]([0-9][0-9]|xx))?", found.get("status", "")):
            raise Invalid.part("parameter", "status", "must be such as 429 or 4xx.")
        projects = await wanted_projects(self.context.projects, call.principal, found)
        wanted = replace(RequestFilter(**{name: found.get(name, "") for name in FILTERS}), projects=projects)
        return await list_response(await self.context.requests.page(wanted, page(found)), _request, self.context.clock)


class RequestItem(Endpoint):
    path = "/manage/requests/{id}"

    @operation("GET", "One of the last requests, with what its time went into.", RequestDetail)
    async def get_request(self, call: Call) -> BufferedResponse:
        record = await self.context.requests.find(call.id)
        if record is None or not call.principal.sees(record.project_id):
            raise NotFound("It is not among the last requests.")
        return json_response(_request(record) | {"timeline": timeline(record)})


def _activity(endpoint: Endpoint) -> Activity:
    if endpoint.context.activity is None:
        raise NotFound("Nobody adds up what goes on here.")
    return endpoint.context.activity


def _period(found: Mapping[str, str]) -> str:
    period = found.get("period", DEFAULT_PERIOD)
    if period not in PERIODS:
        raise Invalid.part("parameter", "period", f"must be one of {', '.join(PERIODS)}.")
    return period


def _limit(found: Mapping[str, str], usual: int) -> int:
    limit = found.get("limit", str(usual))
    if not re.fullmatch("[0-9]{1,4}", limit) or not 1 <= int(limit) <= MAX_PAGE_SIZE:
        raise Invalid.part("parameter", "limit", f"must be a number from 1 to {MAX_PAGE_SIZE}.")
    return int(limit)


def _point(values: ActivitySum) -> dict[str, Any]:
    return {
        **{name: value for name, value in values._asdict().items() if name not in ("at", "p50", "p95", "cost_usd")},
        "at": rfc3339(values.at),
        "cost_usd": round(values.cost_usd, 12),
        "first_byte_p50": values.p50,
        "first_byte_p95": values.p95,
    }


def _request(record: RequestRecord) -> dict[str, Any]:
    values = record._asdict()
    return {name: values[name] for name in RequestView.model_fields if name != "started_at"} | {
        "started_at": rfc3339(record.started_at),
        "attribution": as_shown(record.attribution),
    }
