"""Holds requests to the limits of their token, project and API: reserved before the call, settled after it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

from twisted.internet.defer import CancelledError
from twisted.logger import Logger
from zope.interface import implementer

from llmproxy import errors
from llmproxy.base.budgets import NANO, nano
from llmproxy.base.calendar_periods import Calendar
from llmproxy.base.memo import BoundedMemo
from llmproxy.config.api_settings import Api
from llmproxy.config.model import LimitSettings
from llmproxy.config.routes import Route
from llmproxy.http.request_reader import NO_CONTENT, RequestContent
from llmproxy.instruments import Counter, Instrument
from llmproxy.interfaces import ICounters, IInstrumented
from llmproxy.limits import headers as told
from llmproxy.limits.plan import LimitPlan, Rule, plan, rules
from llmproxy.model import Allowance, Claim, Grant, Verdict

MAX_REMEMBERED_PLANS = 4096  # plans


class MaximumUse(Protocol):
    """What a request can use at most; L{metering.cost_ceiling} has the meanings."""

    @property
    def input(self) -> int: ...
    @property
    def output(self) -> int: ...
    @property
    def choices(self) -> int: ...
    @property
    def maximum(self) -> str: ...
    @property
    def free(self) -> bool: ...
    @property
    def parts(self) -> Sequence[Any]: ...
    @property
    def tokens(self) -> int: ...


class MaximumUseEstimator(Protocol):
    """Says what a request can use and cost at most; L{metering.cost_ceiling} has the meanings."""

    def bound(
        self, method: bytes, api: str, path: bytes, model: str, content: RequestContent, size: int, output: int
    ) -> Any: ...
    def cost(self, api: str, model: str, bound: Any, at: float) -> float | None: ...


class RequestSize(NamedTuple):
    """What a request is reserved by.

    @ivar model: The model that its path or its body names; C{""} where neither does.
    @ivar content: What its body says; C{size} is how many bytes that has.
    """

    method: bytes
    model: str
    content: RequestContent = NO_CONTENT
    size: int = 0


class RequestMaximum(NamedTuple):
    """What a request claims at most.

    @ivar bound: C{None} where only requests are counted.
    @ivar money: Nano-dollars; C{output_nano} tells how many of them one token of output is.
    """

    bound: MaximumUse | None = None
    money: int = 0
    output_nano: Callable[[], float] = float


class LimitReservation:
    """What is held for one request until it is settled.

    @ivar header_lines: Header lines that tell the client how its limits stand.
    """

    __slots__ = ("_counters", "_ticket", "claims", "header_lines", "plan")

    def __init__(
        self, counters: ICounters, plan: LimitPlan, claims: Sequence[Claim], ticket: Any, told: Sequence[bytes]
    ):
        self._counters = counters
        self._ticket = ticket
        self.plan = plan
        self.claims = claims
        self.header_lines = told

    @property
    def budgets(self) -> list[tuple[str, str, int, float]]:
        """What is held of each budget: its key, its unit, how much, and when its period ends."""
        pairs = zip(self.plan.rules, self.claims, strict=True)
        return [(claim.key, rule.unit, claim.amount, claim.ends) for rule, claim in pairs if rule.kind == "budget"]

    def give_back(self) -> None:
        """Nothing was sent: it counts as not made."""
        self._settle([0] * len(self.claims))

    def keep(self, *, recorded: bool = False) -> None:
        """Nobody knows what it used: it counts as what it could have used at most.

        @param recorded: Whether the ledger keeps what is held, until a later response tells.
        """
        self._settle([claim.amount for claim in self.claims], measured=recorded)

    def settle(self, tokens: int, cost: float | None) -> None:
        """It used so many tokens, and so many dollars; what has no known price is charged at the worst.

        @param cost: C{None} where nobody knows.
        """
        spent = None if cost is None else nano(cost)
        self._settle(
            [
                1
                if (unit := rule.unit) == "requests"
                else tokens
                if unit == "tokens"
                else claim.amount
                if spent is None
                else spent
                for rule, claim in zip(self.plan.rules, self.claims, strict=True)
            ]
        )

    def _settle(self, amounts: Sequence[int], *, measured: bool = True) -> None:
        if self._ticket is not None:
            ticket, self._ticket = self._ticket, None
            self._counters.settle(ticket, amounts, measured=measured)


class LimitStatus(NamedTuple):
    """One limit, and how much of it is used; in its unit, dollars as nano-dollars."""

    rule: Rule
    used: int
    ends: float


@implementer(IInstrumented)
class Limiter:
    """Makes reservations. A grant without limits, on an API without limits, costs three look-ups and nothing else."""

    _log = Logger()

    def __init__(
        self,
        counters: ICounters,
        settings: LimitSettings,
        apis: Mapping[str, Api],
        now: Callable[[], float],
        worst: MaximumUseEstimator,
    ) -> None:
        self._counters = counters
        self._now = now
        self._worst = worst
        self._plans: BoundedMemo[tuple[object, ...], LimitPlan] = BoundedMemo(MAX_REMEMBERED_PLANS)
        self._refusals: dict[str, int] = dict.fromkeys(("token", "project", "group", "api"), 0)
        self._calendar = Calendar()
        self._outputs: dict[str, int] = {}
        self.reconfigure(settings, apis)

    def reconfigure(self, settings: LimitSettings, apis: Mapping[str, Api]) -> None:
        """Hold requests to the limits of these settings from now on; what is counted stays counted."""
        self._on_loss = settings.on_loss.by_name()
        self._refuse_unpriced = settings.unknown_price == "refuse"
        self._apis = {name: allowance for name, api in apis.items() if (allowance := api.limits.allowance())}
        self._outputs |= {name: api.limits.default_output_tokens for name, api in apis.items()}
        self._plans.clear()

    def instruments(self) -> Iterator[Instrument]:
        counters = self._counters
        yield Counter("limits_unsettled", "Reservations that could not be settled.", lambda: counters.unsettled)
        yield Counter("limits_refused", "Requests that a limit refused.", lambda: self._refusals, "level")

    def plan(self, grant: Grant, route: Route) -> LimitPlan | None:
        """The limits that the request must keep; C{None} where there are none."""
        own, shared, api = grant.allowance, grant.project_allowance, self._apis.get(route.api_name)
        if own is shared is api is None and not grant.groups:
            return None
        key = (grant.token_id, grant.project_id, route.api_name, own, shared, grant.groups)
        if (known := self._plans.get(key)) is None:
            # What has no token's id is counted for its project, so that nobody shares a limit with strangers.
            owned = (
                ("token", grant.token_id or grant.project_id, own),
                ("project", grant.project_id, shared),
                ("API", route.api_name, api),
            )
            known = self._plans[key] = plan(owned, self._on_loss, grant.groups)
        return known if known.rules else None

    def reserve(
        self, plan: LimitPlan, route: Route, asked: RequestSize
    ) -> LimitReservation | Awaitable[LimitReservation]:
        """Hold all that the request may use at most, or nothing. Waits only where the counters must.

        L{errors.RateLimited}, L{errors.QuotaExceeded} and L{errors.BudgetExceeded} say which limit refuses, and until
        when; L{errors.PriceUnknown} and L{errors.LimitsUnavailable} why it is unknown.
        """
        now = self._now()
        needed = self._needed(plan, route, asked, now)
        claims = self._claims(plan, needed, now)
        verdict = self._counters.reserve_now(claims)
        if verdict is None:
            return self._later(plan, route, claims, needed)
        return self._reserved(plan, route, claims, needed, verdict)

    async def _later(
        self, plan: LimitPlan, route: Route, claims: Sequence[Claim], needed: RequestMaximum
    ) -> LimitReservation:
        try:
            verdict = await self._counters.reserve(claims)
        except (errors.ProxyError, CancelledError):
            raise
        except Exception as e:
            self._log.failure("Limits could not be counted.")
            raise errors.LimitsUnavailable from e
        return self._reserved(plan, route, claims, needed, verdict)

    def _claims(self, plan: LimitPlan, needed: RequestMaximum, now: float) -> list[Claim]:
        tokens = 0 if needed.bound is None else needed.bound.tokens
        claims: list[Claim] = []
        for rule, always in zip(plan.rules, plan.claims, strict=True):
            if always is not None:
                claims.append(always)
                continue
            amount = needed.money if rule.unit == "usd" else tokens
            if rule.kind == "budget":
                span = self._calendar.span(rule.period, now)
                claims.append(Claim(f"{rule.key}:{span.label}", "budget", rule.limit, amount, span.ends, rule.on_loss))
            else:
                claims.append(Claim(rule.key, rule.kind, rule.limit, amount, 0.0, rule.on_loss))
        return claims

    def _needed(self, plan: LimitPlan, route: Route, asked: RequestSize, now: float) -> RequestMaximum:
        """What it claims at most.

        Where dollars are counted, L{errors.PriceUnknown} where that cannot be known, and L{errors.BodyUnreadable}
        where its body says it in two ways.
        """
        if not plan.counts_tokens:
            return _NOTHING
        api, model, content = route.api_name, asked.model, asked.content
        bound = self._worst.bound(
            asked.method, api, route.path, model, content, asked.size, self._outputs[route.api_name]
        )
        if bound.free or not plan.counts_money:
            return RequestMaximum(bound)
        if self._refuse_unpriced:
            _check_readable(content)
        cost = self._worst.cost(api, model, bound, now) if model or bound.parts else None
        if cost is not None:
            each = partial(self._output_nano, api, model, bound, cost, now)  # only a refusal tells it
            return RequestMaximum(bound, nano(cost) + 1, each)  # a nano-dollar more than rounding can take away
        if self._refuse_unpriced:
            raise errors.PriceUnknown if model else errors.PriceUnknown(_NO_MODEL)
        return RequestMaximum(bound)

    def _output_nano(self, api: str, model: str, bound: Any, cost: float, now: float) -> float:
        """What one token of output costs at most, in nano-dollars."""
        if bound.parts or not bound.output:
            return 0.0
        given = self._worst.cost(api, model, bound._replace(output=0), now) or 0.0
        nanos: float = (cost - given) * NANO / bound.output
        return nanos

    def _reserved(
        self, plan: LimitPlan, route: Route, claims: Sequence[Claim], needed: RequestMaximum, verdict: Verdict
    ) -> LimitReservation:
        now = self._now()
        standings = [
            told.RateStatus(rule.unit, rule.limit, left, reset)
            for rule, left, reset in zip(plan.rules, verdict.remaining, verdict.resets, strict=False)
            if rule.kind == "rate"
        ]
        lines = told.lines(standings, route.api.provider, now) if standings else []
        if verdict.refused is None:
            return LimitReservation(self._counters, plan, claims, verdict.ticket, lines)
        fields = dict(line.decode("ascii").split(": ", 1) for line in lines)
        rule, claim = plan.rules[verdict.refused], claims[verdict.refused]
        self._refusals[rule.owner.lower()] += 1
        raise _refusal(rule, claim, verdict, needed, fields, now)

    async def standings(self, owner: str, name: str, allowance: Allowance) -> list[LimitStatus]:
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
        return [LimitStatus(*each) for each in zip(found, used, (claim.ends for claim in claims), strict=True)]


_NOTHING = RequestMaximum()
_NO_MODEL = "The request names no model, so what it costs cannot be held against the budget."


def _check_readable(content: RequestContent) -> None:
    """Refuse what a provider may read otherwise than this proxy, or what this cannot read at all."""
    if content.form == "unknown":
        raise errors.PriceUnknown(f"{content.problem} So what it costs cannot be held against the budget.")
    if not content.complete or (content.problem and not content.members):
        raise errors.BodyUnreadable(content.problem or "The request body could not be read.")
    twice = min(content.repeated, default="")
    if twice:
        raise errors.BodyUnreadable(f'The request body has the member "{twice}" twice; what it costs is not certain.')
    if "model" in content.oversize:
        raise errors.BodyUnreadable("The request body names a model of a length beyond all use.")


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


def _refusal(
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


__all__ = ["LimitReservation", "LimitStatus", "Limiter", "RequestSize"]
