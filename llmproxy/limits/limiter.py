"""Holds requests to the limits of their token, project and API: reserved before the call, settled after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from twisted.internet.defer import CancelledError
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from llmproxy import errors
from llmproxy.base.budgets import NANO, nano
from llmproxy.base.calendar_periods import Calendar
from llmproxy.base.coroutines import as_deferred
from llmproxy.base.memo import BoundedMemo
from llmproxy.config.api_settings import Api
from llmproxy.config.model import LimitSettings
from llmproxy.config.routes import Route
from llmproxy.http.request_reader import NO_CONTENT, RequestContent
from llmproxy.instruments import Counter, HealthCheck, Instrument
from llmproxy.interfaces import ICounters, IHealthChecked, IInstrumented
from llmproxy.limits.counted import CountedLimits, ILocalCounters, IRemoteCounters
from llmproxy.limits.maximum_use import MaximumUseEstimator, RequestMaximum
from llmproxy.limits.pending import PendingReservation
from llmproxy.limits.plan import UNENFORCED, LimitPlan, Rule, plan, rules
from llmproxy.limits.refusals import refusal
from llmproxy.limits.reservation import Amounts, BudgetObserver, LimitReservation
from llmproxy.model import Allowance, Claim, Grant, Verdict

MAX_REMEMBERED_PLANS = 4096  # plans

_ONE_REQUEST: Amounts = (1, 0, 0)


class RequestSize(NamedTuple):
    """What a request is reserved by.

    @ivar model: The model that its path or its body names; C{""} where neither does.
    @ivar content: What its body says; C{size} is how many bytes that has.
    """

    method: bytes
    model: str
    content: RequestContent = NO_CONTENT
    size: int = 0


class LimitsDecision(PendingReservation[LimitReservation]):
    """What is asked of counters that do not decide at once."""

    __slots__ = ("_limiter", "asked", "plan", "route")

    _log = Logger()

    def __init__(
        self,
        limiter: Limiter,
        plan: LimitPlan,
        route: Route,
        asked: RequestSize,
        limits: CountedLimits,
        amounts: Amounts,
    ) -> None:
        super().__init__(limits, amounts)
        self._limiter = limiter
        self.plan = plan
        self.route = route
        self.asked = asked

    def reservation_of(self, ticket: Any, left: Sequence[int], reset: float) -> LimitReservation:
        return self._limiter.reservation_of(self, ticket, left, reset)

    def judge(self, verdict: Verdict) -> LimitReservation:
        return self._limiter.judge(self, verdict)

    def explain(self, error: BaseException) -> BaseException:
        if isinstance(error, errors.ProxyError | CancelledError):
            return error
        self._log.failure("Limits could not be counted.", Failure(error))
        return errors.LimitsUnavailable()


class LimitStatus(NamedTuple):
    """One limit, and how much of it is used; in its unit, dollars as nano-dollars."""

    rule: Rule
    used: int
    ends: float


@implementer(IHealthChecked, IInstrumented)
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
        budgets: BudgetObserver | None = None,
    ) -> None:
        self._counters = counters
        self._local: Any = counters if ILocalCounters.providedBy(counters) else None
        self._remote: Any = counters if IRemoteCounters.providedBy(counters) else None
        self._budgets = budgets
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

    def health_checks(self) -> Iterator[HealthCheck]:
        if self._remote is not None:
            yield HealthCheck("limits", self._state, required=lambda: len(self._closed()) == len(self._on_loss))

    def _state(self) -> str:
        if self._remote.is_available:
            return "ok"
        closed = ", ".join(self._closed())
        return f"unreachable (closed: {closed})" if closed else "unreachable"

    def _closed(self) -> list[str]:
        """The limits by which requests are refused while counters elsewhere cannot be reached."""
        return [limit for limit, policy in self._on_loss.items() if policy == "closed"]

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
            known = self._plans[key] = plan(owned, self._on_loss, grant.groups, route.api.provider)
        return known if known.rules else None

    def reserve(
        self, plan: LimitPlan, route: Route, asked: RequestSize
    ) -> LimitReservation | PendingReservation[LimitReservation]:
        """Hold all that the request may use at most, or nothing. Waits only where the counters must.

        L{errors.RateLimited}, L{errors.QuotaExceeded} and L{errors.BudgetExceeded} say which limit refuses, and until
        when; L{errors.PriceUnknown} and L{errors.LimitsUnavailable} why it is unknown.
        """
        now, limits, amounts = self._now(), plan.limits, _ONE_REQUEST
        if not limits.begins <= now < limits.ends:
            limits = plan.follow(self._calendar, now)
        if plan.counts_tokens:
            api = route.api_name
            most = self._worst.usual(asked.method, api, route.path, asked.model, asked.content, self._outputs[api], now)
            if most is None or (plan.counts_money and most[1] is None):
                needed = self._needed(plan, route, asked, now)
                amounts = (1, 0 if needed.bound is None else needed.bound.tokens, needed.money)
            else:
                tokens, cost = most
                money = 0
                if plan.counts_money and cost is not None:
                    money = nano(cost) + 1  # more than rounding can take away
                amounts = (1, tokens, money)
        if self._local is not None:
            taken = self._local.take(limits, amounts)
            if taken is not None:
                lines = b""
                if limits.rates:
                    lines = plan.rate_lines.after_taking(taken.left, taken.reset, now)
                observer = self._budgets if plan.budgets else None
                return LimitReservation(taken.limits, plan, limits, amounts, taken, lines, observer, is_local=True)
        pending = LimitsDecision(self, plan, route, asked, limits, amounts)
        if self._remote is not None:
            self._remote.begin(pending)
            return (pending.reservation or pending) if pending.is_decided else pending
        claims = limits.claimed(amounts)
        verdict = self._counters.reserve_now(claims)
        if verdict is not None:
            return pending.judge(verdict)
        pending.follow(as_deferred(self._counters.reserve(claims)))
        return pending

    def reservation_of(
        self, decision: LimitsDecision, ticket: Any, left: Sequence[int], reset: float
    ) -> LimitReservation:
        """The reservation of what counters elsewhere have granted."""
        plan, lines = decision.plan, b""
        if left:
            lines = plan.rate_lines.after_taking(left, reset, self._now())
        observer = self._budgets if plan.budgets else None
        return LimitReservation(self._remote, plan, decision.limits, decision.amounts, ticket, lines, observer)

    def judge(self, decision: LimitsDecision, verdict: Verdict) -> LimitReservation:
        """The reservation that counters have decided on, or why there is none."""
        plan, limits, amounts = decision.plan, decision.limits, decision.amounts
        if verdict.refused is not None:
            raise self._refusal(plan, decision.route, decision.asked, limits.claimed(amounts), verdict)
        lines = self._rate_lines(plan, verdict)
        observer = self._budgets if plan.budgets else None
        return LimitReservation(
            self._counters, plan, limits, amounts, verdict.ticket, lines, observer, by_unit=self._remote is not None
        )

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
        refuses = self._refuse_unpriced and plan.needs_price
        if refuses:
            _check_readable(content)
        cost = self._worst.cost(api, model, bound, now) if model or bound.parts else None
        if cost is not None:
            each = partial(self._output_nano, api, model, bound, cost, now)  # only a refusal tells it
            return RequestMaximum(bound, nano(cost) + 1, each)  # a nano-dollar more than rounding can take away
        if refuses:
            raise errors.PriceUnknown if model else errors.PriceUnknown(_NO_MODEL)
        return RequestMaximum(bound)

    def _output_nano(self, api: str, model: str, bound: Any, cost: float, now: float) -> float:
        """What one token of output costs at most, in nano-dollars."""
        if bound.parts or not bound.output:
            return 0.0
        given = self._worst.cost(api, model, bound._replace(output=0), now) or 0.0
        nanos: float = (cost - given) * NANO / bound.output
        return nanos

    def _rate_lines(self, plan: LimitPlan, verdict: Verdict) -> bytes:
        rates = plan.limits.rate_places
        if not rates or not verdict.remaining:
            return b""
        remaining, resets = verdict.remaining, verdict.resets
        return plan.rate_lines.lines(
            [remaining[place] for place in rates], [resets[place] for place in rates], self._now()
        )

    def _refusal(
        self, plan: LimitPlan, route: Route, asked: RequestSize, claims: Sequence[Claim], verdict: Verdict
    ) -> errors.ProxyError:
        assert verdict.refused is not None
        now = self._now()
        lines = self._rate_lines(plan, verdict)
        fields = dict(line.split(": ", 1) for line in lines.decode("ascii").splitlines())
        rule, claim = plan.rules[verdict.refused], claims[verdict.refused]
        if not verdict.lost:  # then no limit refuses it: nobody knows whether one does
            self._refusals[rule.owner.lower()] += 1
        if self._budgets is not None and rule.kind == "budget" and verdict.wait is None:
            self._budgets.refused(rule, claim)
        return refusal(rule, claim, verdict, self._needed(plan, route, asked, now), fields, now)

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
        shown = zip(found, used, (claim.ends for claim in claims), strict=True)
        return [LimitStatus(each, spent, ends) for rule, spent, ends in shown for each in _shown(rule)]


def _shown(rule: Rule) -> Iterator[Rule]:
    """What refuses and what warns are two limits to those who look."""
    if rule.limit < UNENFORCED:
        yield rule
    if rule.soft:
        yield rule._replace(name=f"soft_{rule.name}", limit=rule.soft)


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


__all__ = ["LimitReservation", "LimitStatus", "Limiter", "RequestSize"]
