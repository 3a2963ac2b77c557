"""Limits that settings give, be it an API or the bearers of somebody else's tokens.

The texts under the fields are what C{docs/settings.md} and C{etc/apis.schema.json} say.
"""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from llmproxy.base import budgets
from llmproxy.config.types import Section, TokenBudgets, UsdBudgets, Whole
from llmproxy.model import UNLIMITED, Allowance


class AllowanceSettings(Section):
    """Limits; 0 and empty mean none."""

    requests_per_minute: Whole = Field(default=0, ge=0)
    """Requests in any minute."""
    tokens_per_minute: Whole = Field(default=0, ge=0)
    """Tokens in any minute, input and output."""
    concurrency: Whole = Field(default=0, ge=0)
    """Requests in flight."""
    budget_usd: UsdBudgets = ()
    """Dollars, such as `20/month`; or a list, at most one for each of `day`, `month` and `lifetime`."""
    budget_tokens: TokenBudgets = ()
    """Tokens, such as `1000000/day`; likewise."""
    soft_budget_usd: UsdBudgets = ()
    """Dollars, written as `budget_usd`, at which only an alert is given (docs/limits.md); nothing is refused."""
    soft_budget_tokens: TokenBudgets = ()
    """Tokens, likewise."""

    @model_validator(mode="after")
    def _periods_differ(self) -> Self:
        self.allowance()
        return self

    def allowance(self) -> Allowance | None:
        """The same as the value that travels; C{None} where there are none."""
        made = Allowance(
            requests_per_minute=self.requests_per_minute or None,
            tokens_per_minute=self.tokens_per_minute or None,
            concurrency=self.concurrency or None,
            budget_usd=budgets.each_once(map(budgets.usd, self.budget_usd)),
            budget_tokens=budgets.each_once(map(budgets.tokens, self.budget_tokens)),
            soft_budget_usd=budgets.each_once(map(budgets.usd, self.soft_budget_usd)),
            soft_budget_tokens=budgets.each_once(map(budgets.tokens, self.soft_budget_tokens)),
        )
        return None if made == UNLIMITED else made
