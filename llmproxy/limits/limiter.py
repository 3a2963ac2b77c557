"""Holds requests to the limits of their token, project and API: reserved before the call, settled after it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from twisted.internet.defer import CancelledError
from twisted.logger import Logger

from llmproxy import errors
from llmproxy.budgets import NANO, nano
from llmproxy.calendar_periods import Calendar
from llmproxy.config.model import Api, LimitSettings
from llmproxy.config.routes import Route
from llmproxy.http.request_reader import NO_CONTENT, RequestContent
from llmproxy.interfaces import ICounters
from llmproxy.limits import bounds
from llmproxy.limits import headers as told
from llmproxy.limits.bounds import Bound
from llmproxy.limits.plan import Plan, Rule, plan, rules
from llmproxy.model import Allowance, Claim, Grant, Verdict

REMEMBERED = 4096  # plans


class Worst(Protocol):
    """Tells what a request can use and cost at most; L{metering.worst} has the meanings."""

    def input(self, api: str, model: str, content: RequestContent, size: int) -> int: ...
    def cost(self, api: str, model: str, given: int, made: int, at: float) -> float | None: ...


class Asked(NamedTuple):
    """What a request is reserved by.

    @ivar model: The model that its path or its body names; C{""} where neither does.
    @ivar content: What its body says; C{size} is how many bytes that has.
    """

    model: str
    content: RequestContent = NO_CONTENT
    size: int = 0


class Reservation:
    """What is held for one request until it is settled.

    @ivar told: Header lines that tell the client how its limits stand.
    """

    __slots__ = ("_counters", "_ticket", "claims", "plan", "told")

    def __init__(self, counters: ICounters, plan: Plan, claims: Sequence[Claim], ticket: Any, told: Sequence[bytes]):
        self._counters = counters
        self._ticket = ticket
        self.plan = plan
        self.claims = claims
        self.told = told

    def give_back(self) -> None:
        """Nothing was sent: it counts as not made."""
        self._settle([0] * len(self.claims))

    def keep(self) -> None:
        """Nobody knows what it used: it counts as what it could have used at most."""
        self._settle([claim.amount for claim in self.claims], measured=False)

    def settle(self, tokens: int, cost: float | None) -> None:
        """It used so many tokens, and so many dollars; what has no price is charged with nothing."""
        spent = nano(cost or 0.0)
        self._settle(
            [
                1 if (unit := rule.unit) == "requests" else tokens if unit == "tokens" else spent
                for rule in self.plan.rules
            ]
        )

    def _settle(self, amounts: Sequence[int], *, measured: bool = True) -> None:
        if self._ticket is not None:
            ticket, self._ticket = self._ticket, None
            self._counters.settle(ticket, amounts, measured=measured)


class Standing(NamedTuple):
    """One limit, and how much of it is used; in its unit, dollars as nano-dollars."""

    rule: Rule
    used: int
    ends: float


class Quota:
    """Makes reservations. A grant without limits, on an API without limits, costs three look-ups and nothing else."""

    _log = Logger()

    def __init__(
        self,
        counters: ICounters,
        settings: LimitSettings,
        apis: Mapping[str, Api],
        now: Callable[[], float],
        worst: Worst,
    ) -> None:
        self._counters = counters
        self._now = now
        self._worst = worst
        self._on_loss = settings.on_loss.by_name()
        self._refuse_unpriced = settings.unknown_price == "refuse"
        self._apis = {name: allowance for name, api in apis.items() if (allowance := api.limits.allowance())}
        self._outputs = {name: api.limits.default_output_tokens for name, api in apis.items()}
        self._plans: dict[tuple[str, str, str, Allowance | None, Allowance | None], Plan] = {}
        self._calendar = Calendar()

    def plan(self, grant: Grant, route: Route) -> Plan | None:
        """The limits that the request must keep; C{None} where there are none."""
        own, shared, api = grant.allowance, grant.project_allowance, self._apis.get(route.api_name)
        if own is None and shared is None and api is None:
            return None
        # What has no token's id is counted for its project, so that nobody shares a limit with strangers.
        key = (grant.token_id, grant.project_id, route.api_name, own, shared)
        known = self._plans.get(key)
        if known is None:
            if len(self._plans) >= REMEMBERED:
                self._plans.clear()
            owned = (
                ("token", grant.token_id or grant.project_id, own),
                ("project", grant.project_id, shared),
                ("API", route.api_name, api),
            )
            known = self._plans[key] = plan(owned, self._on_loss)
        return known if known.rules else None

    def reserve(self, plan: Plan, route: Route, asked: Asked) -> Reservation | Awaitable[Reservation]:
        """Hold all that the request may use at most, or nothing. Waits only where the counters must.

        L{errors.RateLimited}, L{errors.QuotaExceeded} and L{errors.BudgetExceeded} say which limit refuses, and until
        when; L{errors.PriceUnknown} and L{errors.LimitsUnavailable} why it cannot be told.
        """
        now = self._now()
        claims = self._claims(plan, route, asked, now)
        verdict = self._counters.reserve_now(claims)
        if verdict is None:
            return self._later(plan, route, claims)
        return self._reserved(plan, route, claims, verdict)

    async def _later(self, plan: Plan, route: Route, claims: Sequence[Claim]) -> Reservation:
        try:
            verdict = await self._counters.reserve(claims)
        except (errors.ProxyError, CancelledError):
            raise
        except Exception as e:
            self._log.failure("Limits could not be counted.")
            raise errors.LimitsUnavailable from e
        return self._reserved(plan, route, claims, verdict)

    def _claims(self, plan: Plan, route: Route, asked: Asked, now: float) -> list[Claim]:
        most = self._bound(route, asked) if plan.counts_tokens else Bound()
        money = self._money(route, asked, most, now) if plan.counts_money else 0
        tokens = most.input + most.output
        claims: list[Claim] = []
        for rule, always in zip(plan.rules, plan.claims, strict=True):
            if always is not None:
                claims.append(always)
                continue
            amount = money if rule.unit == "usd" else tokens
            if rule.kind == "budget":
                span = self._calendar.span(rule.period, now)
                claims.append(Claim(f"{rule.key}:{span.label}", "budget", rule.limit, amount, span.ends, rule.on_loss))
            else:
                claims.append(Claim(rule.key, rule.kind, rule.limit, amount, 0.0, rule.on_loss))
        return claims

    def _bound(self, route: Route, asked: Asked) -> Bound:
        content = asked.content
        if content.form == "none" or bounds.is_free(route.path):
            return Bound()
        return Bound(
            self._worst.input(route.api_name, asked.model, content, asked.size),
            bounds.output(route.path, content, self._outputs[route.api_name]),
        )

    def _money(self, route: Route, asked: Asked, most: Bound, now: float) -> int:
        """Nano-dollars that it may cost at most.

        L{errors.PriceUnknown} where that cannot be known, L{errors.BodyUnreadable} where its body says it in two ways.
        """
        content = asked.content
        if content.form == "none" or bounds.is_free(route.path):
            return 0
        if self._refuse_unpriced:
            _check_readable(content)
        cost = None
        if asked.model:
            cost = self._worst.cost(route.api_name, asked.model, most.input, most.output, now)
        if cost is not None:
            return nano(cost) + 1  # a nano-dollar more than rounding can take away
        if self._refuse_unpriced:
            raise errors.PriceUnknown if asked.model else errors.PriceUnknown(_NO_MODEL)
        return 0

    def _reserved(self, plan: Plan, route: Route, claims: Sequence[Claim], verdict: Verdict) -> Reservation:
        now = self._now()
        standings = [
            told.Standing(rule.unit, rule.limit, left, reset)
            for rule, left, reset in zip(plan.rules, verdict.remaining, verdict.resets, strict=False)
            if rule.kind == "rate"
        ]
        lines = told.lines(standings, route.api.provider, now) if standings else []
        if verdict.refused is None:
            return Reservation(self._counters, plan, claims, verdict.ticket, lines)
        fields = dict(line.decode("ascii").split(": ", 1) for line in lines)
        raise _refusal(plan.rules[verdict.refused], claims[verdict.refused], verdict, fields, now)

    async def standings(self, owner: str, name: str, allowance: Allowance) -> list[Standing]:
        """How the limits of a token or a project stand."""
        found, now = rules(owner, name, allowance, self._on_loss), self._now()
        spans = [self._calendar.span(rule.period, now) if rule.kind == "budget" else None for rule in found]
        claims = [
            Claim(
                f"{rule.key}:{span.label}" if span else rule.key, rule.kind, rule.limit, 0, span.ends if span else 0.0
            )
            for rule, span in zip(found, spans, strict=True)
        ]
        if not claims:
            return []
        used = await self._counters.used(claims)
        return [Standing(*each) for each in zip(found, used, (claim.ends for claim in claims), strict=True)]


_NO_MODEL = "The request names no model, so what it costs cannot be held against the budget."


def _check_readable(content: RequestContent) -> None:
    """Refuse what a provider may read otherwise than this proxy, or what this cannot read at all."""
    if content.form == "unknown":
        raise errors.PriceUnknown(f"{content.problem} So what it costs cannot be held against the budget.")
    if not content.complete or (content.problem and not content.members):
        raise errors.BodyUnreadable(content.problem or "The request body could not be read.")
    name = bounds.ambiguous(content)
    if name:
        raise errors.BodyUnreadable(f'The request body has the member "{name}" twice, or of a length beyond all use.')


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


def _refusal(rule: Rule, claim: Claim, verdict: Verdict, fields: Mapping[str, str], now: float) -> errors.ProxyError:
    """Which limit, whose, and when to try again."""
    if verdict.lost:
        return errors.LimitsUnavailable(retry_after=verdict.wait)
    if rule.kind != "budget":
        named = _NAMED[rule.name].format(limit=rule.limit)
        return errors.RateLimited(f"This {rule.owner} is limited to {named}.", retry_after=verdict.wait, headers=fields)
    wait = verdict.wait if verdict.wait is not None else claim.ends - now if claim.ends else None
    amount = f"${rule.limit / NANO:,.2f}" if rule.unit == "usd" else f"{rule.limit:,} tokens"
    error = _ERRORS[rule.name](
        f"What is left of this {rule.owner}'s budget of {amount} {_PERIODS[rule.period]} does not cover what this "
        "request may use at most. Ask for fewer output tokens, or have the budget raised.",
        retry_after=wait,
        headers=fields,
    )
    error.retry = wait is not None
    return error


__all__ = ["Asked", "Quota", "Reservation", "Standing"]
