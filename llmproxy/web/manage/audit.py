"""C{/manage/audit}: who did what, as the store has it."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from pydantic import Field

from llmproxy.errors import Invalid, NotFound
from llmproxy.proxy.own_response import BufferedResponse
from llmproxy.store.audit_log import AuditFilter
from llmproxy.web.manage.body_types import RFC3339
from llmproxy.web.manage.deferred_model import DeferredModel
from llmproxy.web.manage.endpoint import Call, Endpoint, operation
from llmproxy.web.manage.paging import MAX_SEARCH_CHARACTERS, PAGE_PARAMETERS, list_response, page, query
from llmproxy.web.manage.project_filter import PROJECT_PARAMETERS, wanted_projects
from llmproxy.web.manage.views import Time
from llmproxy.web.respond import json_response

NAMES = ("action", "actor", "outcome", "token_id", "search")


class AuditView(DeferredModel):
    """One entry of the audit log."""

    seq: int = Field(description="Its number in the store's chain.")
    at: Time
    action: str
    actor: str = Field(description="management, key:<id>, oidc:<subject>, token:<id>, proxy, unknown, various.")
    outcome: str = Field(description="intent before a change is made; then success or failure. Else denied or error.")
    project_id: str
    token_id: str
    request_id: str
    client: str
    details: dict[str, Any]
    prev: str = Field(description="The hash of the entry before.")
    hash: str


class AuditList(DeferredModel):
    """One page of the audit log, the latest first."""

    data: list[AuditView]
    total: int | None = Field(description="How many there are in all; null behind a cursor.")
    next_cursor: str | None = Field(description="Where the next page begins; null where this is the last.")


class AuditCollection(Endpoint):
    path = "/manage/audit"

    @operation(
        "GET",
        "The audit log, the latest entries first.",
        AuditList,
        query=(*PROJECT_PARAMETERS, *NAMES, "since", "until", *PAGE_PARAMETERS),
    )
    async def list_audit(self, call: Call) -> BufferedResponse:
        found = query(call.uri, call.operation.query)
        if self.context.audit_table is None:
            raise NotFound("The store has no audit log: audit.store is false.")
        for name in NAMES:
            if len(found.get(name, "")) > MAX_SEARCH_CHARACTERS:
                raise Invalid.part("parameter", name, f"must be text of at most {MAX_SEARCH_CHARACTERS} characters.")
        wanted = AuditFilter(
            projects=await wanted_projects(self.context.projects, call.principal, found),
            since=_time(found, "since"),
            until=_time(found, "until"),
            **{name: found.get(name, "").replace("\0", "") for name in NAMES},
        )
        return await list_response(await self.context.audit_table.page(wanted, page(found)), dict, self.context.clock)


class AuditVerdict(DeferredModel):
    """What the audit log in the store is found to be."""

    entries: int = Field(description="How many are in the chain.")
    problem: str = Field(description="The first that is wrong; empty where nothing is.")


class AuditVerification(Endpoint):
    path = "/manage/audit/verify"

    @operation("GET", "Whether an entry was altered, removed or put elsewhere since it was written.", AuditVerdict)
    async def verify_audit(self, call: Call) -> BufferedResponse:
        if self.context.audit_table is None:
            raise NotFound("The store has no audit log: audit.store is false.")
        report = await self.context.audit_table.verify()
        return json_response({"entries": report.entries, "problem": report.problem})


def _time(found: dict[str, str], name: str) -> float:
    given = found.get(name, "")
    if not given:
        return 0.0
    try:
        if re.fullmatch(RFC3339, given):
            return datetime.fromisoformat(given.upper()).timestamp()
    except (ValueError, OverflowError):
        pass
    raise Invalid.part("parameter", name, "must be an RFC 3339 time such as 2027-01-31T12:00:00Z.")
