"""What a request is held to, what that costs, and what its client is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from llmproxy import errors
from llmproxy.base.budgets import NANO
from llmproxy.base.coroutines import as_deferred
from llmproxy.config.api_settings import Api, ApiLimits
from llmproxy.config.model import LimitSettings, OnLoss, Settings
from llmproxy.config.routes import Route, Routes
from llmproxy.http.request_reader import RequestContent
from llmproxy.interfaces import ICounters
from llmproxy.limits.counted import IRemoteCounters, LimitsWaiter
from llmproxy.limits.limiter import Limiter, LimitReservation, RequestSize
from llmproxy.model import Allowance, Budget, Claim, Grant, Verdict
from tests.support.reading import read

NOW = 1_794_992_800.0  # 2026-11-18T09:06:40Z
GRANT = Grant("p1", token_id="t1")
BODY = b'{"model": "gpt-4o", "max_tokens": 100}'


@implementer(ICounters)
class Counters:
    """Says what a test tells it to, and remembers what it was asked."""

    unsettled = 0

    def __init__(self) -> None:
        self.asked: list[tuple[Claim, ...]] = []
        self.settled: list[tuple[Any, list[int]]] = []
        self.not_told: list[dict[str, int]] = []
        self.verdict: Verdict | None = None
        self.later: Deferred[Verdict] | None = None

    def reserve_now(self, claims: Sequence[Claim]) -> Verdict | None:
        self.asked.append(tuple(claims))
        if self.later is not None:
            return None
        n = len(claims)
        return self.verdict or Verdict(None, remaining=(7,) * n, resets=(2.0,) * n, ticket="ticket")

    def reserve(self, claims: Sequence[Claim]) -> Deferred[Verdict]:
        assert self.later is not None
        return self.later

    def settle(self, ticket: Any, amounts: Sequence[int], *, measured: bool = True) -> None:
        self.settled.append((ticket, list(amounts)))
        self.measured = measured

    def untold(self, amounts: Mapping[str, int]) -> None:
        self.not_told.append(dict(amounts))

    def used(self, claims: Sequence[Claim]) -> Deferred[list[int]]:
        self.asked.append(tuple(claims))
        return succeed([3] * len(claims))


class Bound(NamedTuple):
    input: int
    output: int
    choices: int = 1
    maximum: str = "max_tokens"
    free: bool = False
    parts: Sequence[Any] = ()

    @property
    def tokens(self) -> int:
        return self.input + self.output


class Worst:
    """A token for each byte, up to 1000; two dollars for a million of any tokens of gpt-4o; of other models nothing."""

    def usual(
        self, method: bytes, api: str, path: bytes, model: str, content: RequestContent, output: int, at: float
    ) -> tuple[int, float | None] | None:
        bound = self.bound(method, api, path, model, content, content.size, output)
        return None if bound.free or content.form != "json" else (bound.tokens, self.cost(api, model, bound, at))

    def bound(
        self, method: bytes, api: str, path: bytes, model: str, content: RequestContent, size: int, output: int
    ) -> Bound:
        if content.form == "none" or path == b"/v1/files":
            return Bound(0, 0, free=True)
        return Bound(min(size, 1000), content.members.get("max_tokens", output))

    def cost(self, api: str, model: str, bound: Bound, at: float) -> float | None:
        return bound.tokens * 2e-6 if model == "gpt-4o" else None


class QuotaCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.counters = Counters()
        self.begin()

    def begin(self, limits: dict[str, Any] | None = None, provider: str = "openai", **api: Any) -> None:
        made = Api(
            provider=provider,  # type: ignore[arg-type]
            base_url="http://127.0.0.1:1",
            allowed_endpoints=("/**",),
            limits=ApiLimits(**api),
        )
        settings = Settings(default_api="openai", apis={"openai": made}, limits=LimitSettings(**(limits or {})))
        self.routes = Routes(settings)
        self.quota = Limiter(self.counters, settings.limits, settings.apis, lambda: NOW, Worst())

    def route(self, path: bytes = b"/v1/chat/completions") -> Route:
        return self.routes.match(b"POST", path)

    def reserve(
        self, allowance: Allowance | None, model: str = "gpt-4o", body: bytes | None = BODY, **more: Any
    ) -> Any:
        grant, route = replace(GRANT, allowance=allowance), self.route(**more)
        plan = self.quota.plan(grant, route)
        assert plan is not None
        size = 50_000_000 if body is None else len(body)
        content = read(b"unread" if body is None else body)
        return self.quota.reserve(plan, route, RequestSize(b"POST", model, content, size))

    def amounts(self) -> list[int]:
        return [claim.amount for claim in self.counters.asked[-1]]


class PlanTests(QuotaCase):
    def test_no_limits(self) -> None:
        """Nothing is made and nobody is asked."""
        self.assertIsNone(self.quota.plan(GRANT, self.route()))
        self.assertIsNone(self.quota.plan(replace(GRANT, allowance=Allowance()), self.route()))

    def test_remembered(self) -> None:
        grant = replace(GRANT, allowance=Allowance(concurrency=1))
        plan = self.quota.plan(grant, self.route())
        self.assertIs(self.quota.plan(replace(grant), self.route()), plan)
        other = self.quota.plan(replace(grant, allowance=Allowance(concurrency=2)), self.route())
        assert other is not None
        self.assertEqual(other.rules[0].limit, 2)

    def test_all_owners(self) -> None:
        self.begin(requests_per_minute=9)
        grant = replace(GRANT, allowance=Allowance(concurrency=1), project_allowance=Allowance(concurrency=5))
        plan = self.quota.plan(grant, self.route())
        assert plan is not None
        self.assertEqual([rule.owner for rule in plan.rules], ["token", "project", "API"])


class ReserveTests(QuotaCase):
    def test_what_is_claimed(self) -> None:
        """A request, its worst in tokens and in money; budgets by their periods."""
        budgets = (Budget(5 * NANO, "day"), Budget(20 * NANO, "month"))
        self.reserve(Allowance(requests_per_minute=60, tokens_per_minute=900, concurrency=2, budget_usd=budgets))
        tokens = len(BODY) + 100
        self.assertEqual(self.amounts(), [1, 1, tokens, tokens * 2000 + 1, tokens * 2000 + 1])
        claims = self.counters.asked[-1]
        self.assertEqual(
            [claim.key for claim in claims[3:]],
            ["token:t1:budget_usd:day:2026-11-18", "token:t1:budget_usd:month:2026-11"],
        )
        self.assertEqual([claim.ends for claim in claims[3:]], [1795046400.0, 1796083200.0])
        self.assertEqual([c.on_loss for c in claims], ["local-share"] * 3 + ["closed"] * 2)

    def test_a_body_that_is_too_large_to_be_read(self) -> None:
        """Input up to what the model can read, output as the API's settings say."""
        self.begin(default_output_tokens=7)
        self.reserve(Allowance(tokens_per_minute=900), body=None)
        self.assertEqual(self.amounts(), [1007])

    def test_requests_alone_need_no_look_into_the_body(self) -> None:
        plan = self.quota.plan(replace(GRANT, allowance=Allowance(requests_per_minute=1, concurrency=1)), self.route())
        assert plan is not None
        self.assertFalse(plan.counts_tokens)

    def test_a_model_without_a_price(self) -> None:
        budget = Allowance(budget_usd=(Budget(NANO, "day"),))
        with self.assertRaises(errors.PriceUnknown):
            self.reserve(budget, model="mine")
        self.begin(limits={"unknown_price": "allow"})
        self.reserve(budget, model="mine")
        self.assertEqual(self.amounts(), [0])

    def test_what_names_no_model_costs_nothing(self) -> None:
        self.reserve(Allowance(budget_usd=(Budget(NANO, "day"),)), model="", body=b"", path=b"/v1/models")
        self.assertEqual(self.amounts(), [0])

    def test_at_once(self) -> None:
        self.assertIsInstance(self.reserve(Allowance(concurrency=1)), LimitReservation)

    def test_later(self) -> None:
        self.counters.later = Deferred()
        waiting = as_deferred(self.reserve(Allowance(concurrency=1)))
        self.assertNoResult(waiting)
        self.counters.later.callback(Verdict(None, remaining=(1,), resets=(0.0,), ticket="t"))
        self.assertIsInstance(self.successResultOf(waiting), LimitReservation)

    def test_counters_that_fail(self) -> None:
        self.counters.later = fail(ZeroDivisionError("password"))
        failure = self.failureResultOf(as_deferred(self.reserve(Allowance(concurrency=1))))
        failure.trap(errors.LimitsUnavailable)
        self.assertNotIn("password", failure.value.message)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class SettleTests(QuotaCase):
    def held(self) -> LimitReservation:
        budgets = (Budget(5 * NANO, "day"),)
        made = self.reserve(Allowance(requests_per_minute=60, tokens_per_minute=900, concurrency=2, budget_usd=budgets))
        assert isinstance(made, LimitReservation)
        return made

    def test_settled(self) -> None:
        self.held().settle(42, 0.0001)
        self.assertEqual(self.counters.settled, [("ticket", [1, 1, 42, 100_000])])

    def test_without_a_price(self) -> None:
        """What nobody knows is charged at the worst, and no line will tell it; that is said once."""
        held = self.held()
        for _ in range(2):
            held.settle(42, None)
        worst = held.claims[-1]
        self.assertEqual(self.counters.settled, [("ticket", [1, 1, 42, worst.amount])])
        self.assertEqual(self.counters.not_told, [{worst.key: worst.amount}])
        self.held().settle(42, 0.5)
        self.assertEqual(len(self.counters.not_told), 1)

    def test_given_back(self) -> None:
        self.held().give_back()
        self.assertEqual(self.counters.settled, [("ticket", [0, 0, 0, 0])])

    def test_kept(self) -> None:
        held = self.held()
        held.keep()
        self.assertEqual(self.counters.settled, [("ticket", [claim.amount for claim in held.claims])])
        self.assertFalse(self.counters.measured)

    def test_once(self) -> None:
        held = self.held()
        held.settle(1, 0.0)
        held.give_back()
        self.assertEqual(len(self.counters.settled), 1)


class RefusalTests(QuotaCase):
    def refused(self, allowance: Allowance, wait: float | None = None, **more: Any) -> errors.ProxyError:
        self.counters.verdict = Verdict(0, wait, remaining=(0,), resets=(1.5,), **more)
        with self.assertRaises(errors.ProxyError) as caught:
            self.reserve(allowance)
        return caught.exception

    def test_requests(self) -> None:
        error = self.refused(Allowance(requests_per_minute=60), 1.25)
        self.assertEqual((error.status, error.code, error.retry_after), (429, "rate_limit_exceeded", 1.25))
        self.assertEqual(error.message, "This token is limited to 60 requests per minute.")
        self.assertEqual(error.headers["x-ratelimit-remaining-requests"], "0")

    def test_as_anthropic_says_it(self) -> None:
        self.begin(provider="anthropic")
        error = self.refused(Allowance(tokens_per_minute=60), 1.25)
        self.assertEqual(error.headers["anthropic-ratelimit-tokens-remaining"], "0")

    def test_concurrency(self) -> None:
        error = self.refused(Allowance(concurrency=5), 1.0)
        self.assertEqual((error.code, error.headers), ("rate_limit_exceeded", {}))
        self.assertEqual(error.message, "This token is limited to 5 requests at once.")

    def test_a_budget_until_its_period_ends(self) -> None:
        error = self.refused(Allowance(budget_usd=(Budget(5 * NANO // 2, "day"),)))
        self.assertEqual((error.status, error.code, error.retry_after), (429, "budget_exceeded", 53_600.0))
        self.assertIn("budget of $2.50 for today", error.message)

    def test_a_budget_for_good(self) -> None:
        error = self.refused(Allowance(budget_usd=(Budget(NANO, "lifetime"),)))
        self.assertEqual((error.retry, error.retry_after), (False, None))

    def test_a_budget_of_tokens(self) -> None:
        error = self.refused(Allowance(budget_tokens=(Budget(1000, "month"),)))
        self.assertEqual(error.code, "quota_exceeded")
        self.assertTrue(error.retry)
        self.assertIn("1,000 tokens for this month", error.message)

    def test_a_budget_that_requests_under_way_may_give_back(self) -> None:
        error = self.refused(Allowance(budget_usd=(Budget(NANO, "lifetime"),)), 1.0)
        self.assertEqual((error.retry, error.retry_after), (True, 1.0))

    def test_nobody_can_tell(self) -> None:
        """No limit has refused it, and none counts it as refused."""
        error = self.refused(Allowance(requests_per_minute=60), 1.0, lost=True)
        self.assertEqual((error.status, error.code), (503, "limits_unavailable"))
        self.assertEqual(self.counted(), 0)
        self.refused(Allowance(requests_per_minute=60), 1.0)
        self.assertEqual(self.counted(), 1)

    def counted(self) -> float:
        readings = {each.name: each.read() for each in self.quota.instruments()}["limits_refused"]
        assert isinstance(readings, dict)
        return sum(readings.values())


@implementer(IRemoteCounters)
class Elsewhere(Counters):
    """Counters that can be asked, or cannot."""

    is_available = True

    def begin(self, waiter: LimitsWaiter) -> None: ...

    def tell_settled(self) -> None: ...


class HealthTests(QuotaCase):
    def checks(self, **on_loss: str) -> list[tuple[str, str, bool]]:
        self.quota.reconfigure(LimitSettings(on_loss=OnLoss(**on_loss)), {})  # type: ignore[arg-type]
        return [(each.name, each.read(), each.is_required) for each in self.quota.health_checks()]

    def test_counters_here(self) -> None:
        self.assertEqual(self.checks(), [])

    def test_counters_elsewhere(self) -> None:
        """While they are away some requests are refused, or none, as the settings in force have it. Only where all that
        have a limit are is that a reason to send none here."""
        counters = self.counters = Elsewhere()
        self.begin()
        self.assertEqual(self.checks(), [("limits", "ok", False)])
        counters.is_available = False
        self.assertEqual(self.checks(), [("limits", "unreachable (closed: budget_usd, budget_tokens)", False)])
        share = dict.fromkeys(("budget_usd", "budget_tokens"), "local-share")
        self.assertEqual(self.checks(**share), [("limits", "unreachable", False)])
        names = OnLoss().by_name()
        said = f"unreachable (closed: {', '.join(names)})"
        self.assertEqual(self.checks(**dict.fromkeys(names, "closed")), [("limits", said, True)])


class StandingsTests(QuotaCase):
    def test_how_limits_stand(self) -> None:
        allowance = Allowance(requests_per_minute=60, budget_usd=(Budget(NANO, "day"),))
        standings = self.successResultOf(Deferred.fromCoroutine(self.quota.standings("token", "t1", allowance)))
        self.assertEqual(
            [(standing.rule.name, standing.used, standing.ends) for standing in standings],
            [("requests_per_minute", 3, 0.0), ("budget_usd", 3, 1795046400.0)],
        )

    def test_the_same_as_are_counted(self) -> None:
        """What is shown is what requests are held to."""
        allowance = Allowance(requests_per_minute=60, concurrency=1, budget_tokens=(Budget(NANO, "month"),))
        self.reserve(allowance)
        reserved = {claim.key for claim in self.counters.asked[-1]}
        self.successResultOf(Deferred.fromCoroutine(self.quota.standings("token", "t1", allowance)))
        self.assertEqual({claim.key for claim in self.counters.asked[-1]}, reserved)

    def test_none(self) -> None:
        standings = self.successResultOf(Deferred.fromCoroutine(self.quota.standings("token", "t1", Allowance())))
        self.assertEqual((standings, self.counters.asked), ([], []))
