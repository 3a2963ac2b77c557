"""What a limit that refuses a request says: which one, whose, what was wanted, and what would fit. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from llmproxy import errors
from llmproxy.base.budgets import NANO
from llmproxy.limits.maximum_use import RequestMaximum
from llmproxy.limits.plan import Rule
from llmproxy.model import Claim, Verdict

_NAMED = {
    "requests_per_minute": "{limit:,} requests per minute",
    "tokens_per_minute": "{limit:,} tokens per minute",
    "concurrency": "{limit:,} requests at once",
}
_PERIODS = {"day": "for today (UTC)", "month": "for this month (UTC)", "lifetime": "for its lifetime"}
_ERRORS: dict[str, type[errors.ProxyError]] = {
    "budget_usd": errors.BudgetExceeded,
    "budget_tokens": errors.QuotaExceeded,
}


def refusal(
    rule: Rule, claim: Claim, verdict: Verdict, needed: RequestMaximum, fields: Mapping[str, str], now: float
) -> errors.ProxyError:
    """Which limit, whose, what was wanted and what is left of it, and when to try again."""
    if verdict.lost:
        return errors.LimitsUnavailable(retry_after=verdict.wait)
    left = verdict.remaining[verdict.refused] if verdict.refused is not None and verdict.remaining else 0
    if rule.kind != "budget":
        named = _NAMED[rule.name].format(limit=rule.limit)
        said = f"T{_whose(rule)[1:]} is limited to {named}."
        if rule.unit == "tokens":
            said = f"{said} {_wanted(rule, claim, left, needed)}"
        return errors.RateLimited(said, retry_after=verdict.wait, headers=fields)
    wait = verdict.wait if verdict.wait is not None else claim.ends - now if claim.ends else None
    amount = f"${rule.limit / NANO:,.2f}" if rule.unit == "usd" else f"{rule.limit:,} tokens"
    error = _ERRORS[rule.name](
        f"What is left of {_whose(rule)}'s budget of {amount} {_PERIODS[rule.period]} does not cover what this "
        f"request may use at most. {_wanted(rule, claim, left, needed)}",
        retry_after=wait,
        headers=fields,
    )
    error.retry = wait is not None
    return error


def _whose(rule: Rule) -> str:
    return f'the {rule.owner} "{rule.label}"' if rule.label else f"this {rule.owner}"


def _wanted(rule: Rule, claim: Claim, left: int, needed: RequestMaximum) -> str:
    """What it may use, what is left, and what would fit."""
    left = max(left, 0)
    bound = needed.bound
    rest = f"{_amount(rule, left)} {'is' if rule.unit == 'usd' else 'are'} left."
    told = f"It may use {_amount(rule, claim.amount)}, and {rest}"
    if bound is None or not bound.maximum or not bound.output:
        return told
    parts = f" ({bound.input:,} tokens of input and {bound.output:,} of output)"
    told = f"It may use {_amount(rule, claim.amount)}{parts}, and {rest}"
    # Of what is claimed, as much is for output as its tokens are worth: those of the tokens, or of the money for them.
    fits = _fitting(rule, claim.amount, left, needed)
    if fits > 0:
        return f"{told} It would fit with {bound.maximum} up to {fits:,}."
    return f"{told} Its input alone does not fit."


def _fitting(rule: Rule, wanted: int, left: int, needed: RequestMaximum) -> int:
    """The greatest maximum of output with which it would fit; 0 where none would."""
    bound = needed.bound
    assert bound is not None
    each = 1.0 if rule.unit == "tokens" else needed.output_nano()
    return max(int((left - (wanted - bound.output * each)) / each / bound.choices), 0) if each else 0


def _amount(rule: Rule, amount: int) -> str:
    if rule.unit != "usd":
        return f"{amount:,} tokens"
    dollars = amount / NANO
    return f"${dollars:,.2f}" if dollars >= 1 else f"${dollars:.6f}".rstrip("0").rstrip(".")
