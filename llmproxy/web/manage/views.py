"""What the management API answers with. Never a provider key, and a token only in the response that issues it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from llmproxy.base import budgets
from llmproxy.base.timestamps import rfc3339
from llmproxy.limits.limiter import LimitStatus
from llmproxy.model import Allowance, Project, Token
from llmproxy.web.manage.deferred_model import DeferredModel
from llmproxy.web.manage.policy_bodies import FurtherPolicyView, PolicyView, policy_json

Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


TokenState = Literal["active", "expired", "used_up", "revoked"]


class LimitView(DeferredModel):
    """How one limit stands. Dollars are a decimal number; what requests under way may use counts as used."""

    limit: str = Field(description="Its name, such as requests_per_minute.")
    period: str | None = Field(description="Of a budget: day, month or lifetime.")
    allowed: int | float
    used: int | float
    remaining: int | float
    ends_at: Time | None = Field(description="When a budget's period ends.")


class LimitsView(DeferredModel):
    """The limits of a token or a project; null, or an empty list, where there are none."""

    requests_per_minute: int | None
    tokens_per_minute: int | None
    concurrency: int | None
    budget_usd: list[str]
    budget_tokens: list[str]
    soft_budget_usd: list[str]
    soft_budget_tokens: list[str]
    limits: list[LimitView] | None = Field(description="How they stand. Only where one token or project is shown.")


class ProjectFacts(DeferredModel):
    id: str
    name: str
    active: bool
    api_keys: dict[str, str | list[str]] = Field(
        description="By API name, first and last characters only, or the whole reference; or a list."
    )
    labels: list[str]
    metadata: dict[str, str]
    group_id: str | None
    created_at: Time
    updated_at: Time
    deactivated_at: Time | None


class ProjectView(LimitsView, PolicyView, ProjectFacts):
    """A project, with its provider keys masked."""


class ProjectList(DeferredModel):
    """One page of the projects, oldest first."""

    data: list[ProjectView]
    total: int | None = Field(description="How many there are in all; null behind a cursor.")
    next_cursor: str | None = Field(description="Where the next page begins; null where this is the last.")


class TokenFacts(DeferredModel):
    id: str
    project_id: str
    name: str
    prefix: str = Field(description="The token's first characters, to recognise it by.")
    active: bool = Field(description="False once it has been revoked. An expired token may still be active.")
    state: TokenState = Field(description="Whether it can be used now, or why not.")
    expires_at: Time | None
    max_requests: int | None
    request_count: int
    cache_hits: int = Field(description="Requests that were answered from the cache; they are not in request_count.")
    apis: list[str]
    endpoints: list[str]
    models: list[str]
    ips: list[str]
    labels: list[str]
    metadata: dict[str, str]
    created_at: Time
    last_used_at: Time | None
    deactivated_at: Time | None
    previous_expires_at: Time | None = Field(
        description="Until when the secret before the last rotation is valid; null where none is."
    )


class TokenView(LimitsView, FurtherPolicyView, TokenFacts):
    """What is known of a token."""


class TokenIssued(TokenView):
    """A new token."""

    token: str = Field(description="The token itself. Shown this once, and nowhere kept.")


class TokenRotated(TokenIssued):
    """A token with its new secret."""

    previous_expires_at: Time


class TokenList(DeferredModel):
    """One page of the tokens, oldest first."""

    data: list[TokenView]
    total: int | None = Field(description="How many there are in all; null behind a cursor.")
    next_cursor: str | None = Field(description="Where the next page begins; null where this is the last.")


class Revoked(DeferredModel):
    """How many tokens were active until now."""

    revoked: int


class UsageRow(DeferredModel):
    """What one group used. Of the groups' own members those are there that were asked for; by an attribution also one
    of its name."""

    model_config = ConfigDict(extra="allow")

    project_id: str | None = None
    group_id: str | None = Field(None, description="The group that the project is in now; empty where it is in none.")
    token_id: str | None = None
    api: str | None = None
    model: str | None = Field(None, description="The model that answered; where that is not known, that was asked for.")
    day: str | None = Field(None, description="In UTC: 2026-11-25. Old days are folded into their month: 2026-11.")
    month: str | None = Field(None, description="In UTC: 2026-11.")
    claimed: bool | None = Field(
        None, description="Whether the client claims the attribution's value; else its token's metadata fixes it."
    )
    requests: int
    failed: int = Field(description="Of these, without an answer but an error.")
    estimated: int = Field(description="Of these, those whose tokens are estimated.")
    unpriced: int = Field(description="Of these, those whose cost is not known and not in the sum.")
    input_tokens: int = Field(description="Those read from and written to the provider's cache included.")
    cached_tokens: int
    cache_write_tokens: int
    output_tokens: int = Field(description="Those of reasoning included.")
    reasoning_tokens: int
    cost_usd: float


class UsageReport(DeferredModel):
    """One page of a report."""

    data: list[UsageRow]
    total: int | None = Field(description="How many there are in all; null behind a cursor.")
    next_cursor: str | None = Field(description="Where the next page begins; null where this is the last.")


def project_json(project: Project, standings: list[LimitStatus] | None = None) -> dict[str, object]:
    """L{ProjectView} of C{project}."""
    return ProjectView(
        id=project.id,
        name=project.name,
        active=project.active,
        api_keys={
            api: [masked, *further] if (further := project.masked_further_keys.get(api)) else masked
            for api, masked in sorted(project.masked_keys.items())
        },
        labels=list(project.labels),
        metadata=dict(project.metadata),
        group_id=project.group_id or None,
        created_at=rfc3339(project.created_at),
        updated_at=rfc3339(project.updated_at),
        deactivated_at=_time(project.deactivated_at),
        **policy_json(project.policy),
        **limits_json(project.allowance, standings),
    ).model_dump()


def token_json(token: Token, now: float, standings: list[LimitStatus] | None = None) -> dict[str, object]:
    """L{TokenView} of C{token}, as it is C{now}, in seconds since the epoch."""
    return TokenView(
        id=token.id,
        project_id=token.project_id,
        name=token.name,
        prefix=token.prefix,
        active=token.active,
        state=_state(token, now),
        expires_at=_time(token.expires_at),
        max_requests=token.max_requests,
        request_count=token.request_count,
        cache_hits=token.cache_hits,
        apis=list(token.apis),
        endpoints=list(token.endpoints),
        models=list(token.models),
        ips=list(token.ips),
        labels=list(token.labels),
        metadata=dict(token.metadata),
        created_at=rfc3339(token.created_at),
        last_used_at=_time(token.last_used_at),
        deactivated_at=_time(token.deactivated_at),
        previous_expires_at=_time(_previous_end(token, now)),
        **policy_json(token.policy, FurtherPolicyView),
        **limits_json(token.allowance, standings),
    ).model_dump()


def _previous_end(token: Token, now: float) -> float | None:
    """Until when the secret before the last rotation is valid; C{None} where it is not."""
    ends = [end for end in (token.previous_expires_at, token.expires_at) if end is not None]
    valid = token.active and token.previous_expires_at is not None and min(ends) > now
    return min(ends) if valid else None


# What changes with use, or says no more than other members do.
_NOT_CHANGES = frozenset(
    ("api_keys", "updated_at", "deactivated_at", "limits", "state", "request_count", "cache_hits", "last_used_at")
)


def changes_between(before: Mapping[str, object], after: Mapping[str, object]) -> dict[str, object]:
    """What a change has made of a project or a token, as the audit log has it: C{before} and C{after}, by member."""
    return {
        name: {"before": before[name], "after": value}
        for name, value in after.items()
        if name not in _NOT_CHANGES and before[name] != value
    }


def _state(token: Token, now: float) -> TokenState:
    if not token.active:
        return "revoked"
    if token.expires_at is not None and token.expires_at <= now:
        return "expired"
    used_up = token.max_requests is not None and token.request_count >= token.max_requests
    return "used_up" if used_up else "active"


def limits_json(allowance: Allowance, standings: list[LimitStatus] | None) -> dict[str, Any]:
    """The fields of L{LimitsView}."""
    return {
        "requests_per_minute": allowance.requests_per_minute,
        "tokens_per_minute": allowance.tokens_per_minute,
        "concurrency": allowance.concurrency,
        "budget_usd": [budgets.usd_text(budget) for budget in allowance.budget_usd],
        "budget_tokens": [budgets.tokens_text(budget) for budget in allowance.budget_tokens],
        "soft_budget_usd": [budgets.usd_text(budget) for budget in allowance.soft_budget_usd],
        "soft_budget_tokens": [budgets.tokens_text(budget) for budget in allowance.soft_budget_tokens],
        "limits": None if standings is None else [_standing(standing) for standing in standings],
    }


def _standing(standing: LimitStatus) -> LimitView:
    rule = standing.rule
    scale = budgets.NANO if rule.unit == "usd" else 1
    allowed, used, remaining = (
        amount if scale == 1 else round(amount / scale, 9)
        for amount in (rule.limit, standing.used, max(rule.limit - standing.used, 0))
    )
    return LimitView(
        limit=rule.name,
        period=rule.period or None,
        allowed=allowed,
        used=used,
        remaining=remaining,
        ends_at=rfc3339(standing.ends) if standing.ends else None,
    )


def _time(at: float | None) -> str | None:
    return None if at is None else rfc3339(at)
