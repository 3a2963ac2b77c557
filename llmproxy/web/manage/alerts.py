"""C{/manage/alerts}: what was alerted of budgets."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field

from llmproxy.base.timestamps import rfc3339
from llmproxy.errors import Invalid, NotFound
from llmproxy.model import BudgetAlert
from llmproxy.observability.alert_texts import alert_json
from llmproxy.proxy.own_response import BufferedResponse
from llmproxy.store.budget_alerts import AlertFilter
from llmproxy.web.manage.deferred_model import DeferredModel
from llmproxy.web.manage.endpoint import Call, Endpoint, operation
from llmproxy.web.manage.paging import ID, PAGE_PARAMETERS, list_response, page, query
from llmproxy.web.manage.project_filter import PROJECT_PARAMETERS, wanted_projects
from llmproxy.web.manage.views import Time

OWNERS = ("token", "project", "group", "api")


class AlertView(DeferredModel):
    """One alert: a threshold of a budget was reached, or a request refused because too little was left."""

    id: str = Field(description="The same as the webhook-id.")
    at: Time
    type: Literal["budget.threshold", "budget.refusal"]
    threshold: int | None = Field(description="In percent of the budget; null for a refusal.")
    soft: bool = Field(description="Whether the budget only warns.")
    owner: Literal["token", "project", "group", "api"]
    owner_id: str
    name: str = Field(description="What the owner was called then.")
    project_id: str = Field(description="The project that it concerns; empty for a group and an API.")
    budget: str = Field(description="The limit's name, such as budget_usd or soft_budget_usd.")
    period: str
    allowed: int | float = Field(description="The budget then, in tokens or dollars.")
    spent: int | float
    percent: float
    ends_at: Time | None = Field(description="When the budget's period ends; null for a lifetime.")
    text: str = Field(description="The same for people.")
    delivered_at: Time | None = Field(description="When the webhook's receiver took it; null where it has not.")


class AlertList(DeferredModel):
    """One page of the alerts, the latest first."""

    data: list[AlertView]
    total: int | None = Field(description="How many there are in all; null behind a cursor.")
    next_cursor: str | None = Field(description="Where the next page begins; null where this is the last.")


class AlertCollection(Endpoint):
    path = "/manage/alerts"

    @operation(
        "GET",
        "What was alerted of budgets, the latest first.",
        AlertList,
        query=(*PROJECT_PARAMETERS, "owner", "owner_id", *PAGE_PARAMETERS),
    )
    async def list_alerts(self, call: Call) -> BufferedResponse:
        found = query(call.uri, call.operation.query)
        if self.context.alerts is None:
            raise NotFound("There are no alerts here.")
        owner, owner_id = found.get("owner", ""), found.get("owner_id", "")
        if owner and owner not in OWNERS:
            raise Invalid.part("parameter", "owner", f"must be one of {', '.join(OWNERS)}.")
        if owner_id and not re.fullmatch(ID, owner_id):
            raise Invalid.part("parameter", "owner_id", "is not an id.")
        wanted = AlertFilter(await wanted_projects(self.context.projects, call.principal, found), owner, owner_id)
        alerts = await self.context.alerts.alert_page(wanted, page(found))
        return await list_response(alerts, _shown, self.context.clock)


def _shown(alert: BudgetAlert) -> dict[str, Any]:
    delivered = None if alert.delivered_at is None else rfc3339(alert.delivered_at)
    return alert_json(alert) | {"delivered_at": delivered}
