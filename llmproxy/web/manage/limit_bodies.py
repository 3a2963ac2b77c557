"""The limits that the management API is sent, of tokens, projects and groups alike."""

from __future__ import annotations

from dataclasses import replace

from pydantic import (
    Field,
    ValidationInfo,
    field_validator,
)

from llmproxy.base import budgets
from llmproxy.model import UNLIMITED, Allowance
from llmproxy.web.manage.body_types import Body, Rate, TokenBudgets, UsdBudgets

_READ = {
    "budget_usd": budgets.usd,
    "budget_tokens": budgets.tokens,
    "soft_budget_usd": budgets.usd,
    "soft_budget_tokens": budgets.tokens,
}


class Limits(Body):
    """What may be used; null, or an empty list, for no limit."""

    requests_per_minute: Rate | None = Field(None, description="Requests in any minute.")
    tokens_per_minute: Rate | None = Field(None, description="Tokens in any minute, input and output.")
    concurrency: Rate | None = Field(None, description="Requests at once.")
    budget_usd: UsdBudgets = Field((), description='Dollars: "20/month", one for each of day, month and lifetime.')
    budget_tokens: TokenBudgets = Field((), description='Tokens: "1000000/day", likewise.')
    soft_budget_usd: UsdBudgets = Field((), description="Likewise in dollars, of those that warn and refuse nothing.")
    soft_budget_tokens: TokenBudgets = Field((), description="Likewise in tokens.")

    @field_validator(*_READ)
    @classmethod
    def _periods_differ(cls, given: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        budgets.each_once(map(_READ[info.field_name or ""], given))
        return given

    def limits(self, before: Allowance = UNLIMITED) -> Allowance:
        """These limits; those that are not given as they were before."""
        given = {name: getattr(self, name) for name in Limits.model_fields if name in self.model_fields_set}
        for name in _READ.keys() & given.keys():
            given[name] = budgets.each_once(map(_READ[name], given[name]))
        return replace(before, **given)
