"""A request is held to the same, and told the same, wherever its limits are counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from llmproxy import errors
from llmproxy.config.api_settings import Api, ApiLimits
from llmproxy.config.model import LimitSettings, Settings
from llmproxy.config.routes import Routes
from llmproxy.http.whole_body import read_strictly_at_once
from llmproxy.interfaces import ICounters
from llmproxy.limits.counters.budget_store import MemoryBudgetStore
from llmproxy.limits.counters.memory import MemoryCounters
from llmproxy.limits.counters.shared import SharedCounters
from llmproxy.limits.counters.supervised import SupervisedCounters
from llmproxy.limits.limiter import Limiter, LimitReservation, RequestSize
from llmproxy.metering.catalog import Operations
from llmproxy.metering.cost_ceiling import CostCeiling
from llmproxy.metering.prices import OwnPrice, Prices
from llmproxy.model import Allowance, Budget, Claim, Grant, Verdict
from tests.support.examples import examples

START = 1_794_992_800.0  # 2026-11-18T09:06:40Z
SETTINGS = Settings(
    default_api="openai",
    apis={
        "openai": Api(
            provider="openai",
            base_url="http://127.0.0.1:1",
            allowed_endpoints=("/**",),
            limits=ApiLimits(requests_per_minute=9),
        )
    },
    limits=LimitSettings(unknown_price="allow"),
)
ROUTE = Routes(SETTINGS).match(b"POST", b"/v1/chat/completions")
GRANT = Grant(
    "p",
    token_id="t",
    allowance=Allowance(requests_per_minute=7, tokens_per_minute=2000, concurrency=3),
    project_allowance=Allowance(tokens_per_minute=3000, budget_usd=(Budget(8_000_000, "day"), Budget(10**7, "month"))),
)
BODIES = [
    b'{"model": "mine", "max_tokens": %d, "messages": "%b"%b}' % (most, b"some words " * words, more)
    for most, words, more in ((1, 1, b""), (100, 0, b""), (900, 100, b""), (50, 20, b', "tools": [{"a": 1}]'))
]
STEP = st.one_of(
    st.tuples(st.just("ask"), st.sampled_from(BODIES)),
    st.tuples(st.just("settle"), st.integers(0, 3), st.integers(0, 1500), st.sampled_from([None, 0.0, 0.0015])),
    st.tuples(st.sampled_from(["give back", "keep", "keep, recorded"]), st.integers(0, 3)),
    st.tuples(st.just("wait"), st.sampled_from([0.05, 1.0, 30.0, 61.0, 86_400.0])),
)


@implementer(ICounters)
class ClaimCounters:
    """Of another make: is asked for claims, and nothing else."""

    unsettled = 0

    def __init__(self, counters: MemoryCounters) -> None:
        self._counters = counters

    def reserve_now(self, claims: Sequence[Claim]) -> Verdict | None:
        return self._counters.reserve_now(claims)

    def reserve(self, claims: Sequence[Claim]) -> Deferred[Verdict]:
        return self._counters.reserve(claims)

    def settle(self, ticket: Any, amounts: Sequence[int], *, measured: bool = True) -> None:
        self._counters.settle(ticket, amounts, measured=measured)

    def untold(self, amounts: Mapping[str, int]) -> None:
        self._counters.untold(amounts)


class Way:
    """One way of counting."""

    def __init__(self, kind: str) -> None:
        self.clock = Clock()
        self.store = MemoryBudgetStore(self.now)
        memory = MemoryCounters(self.store, self.clock, self.now)
        shared = SharedCounters(self.clock.seconds)

        def exchange(settled: list[Any], wanted: list[Any]) -> Deferred[list[Any]]:
            return succeed(shared.exchange("1.1", settled, wanted))

        self.counters: Any = memory
        if kind == "claims":
            self.counters = ClaimCounters(memory)
        elif kind == "elsewhere":
            self.counters = SupervisedCounters(exchange, self.clock, self.store, self.now, processes=1)
        worst = CostCeiling(Prices([OwnPrice("openai", "mine", 1.0, 2.0)]), {"openai": "openai"}, Operations(SETTINGS))
        self.limiter = Limiter(self.counters, SETTINGS.limits, SETTINGS.apis, self.now, worst)
        self.held: list[LimitReservation] = []
        self.heard: list[Any] = []

    def now(self) -> float:
        return START + self.clock.seconds()

    def ask(self, body: bytes) -> None:
        content = read_strictly_at_once(body, [], lambda name: name != "messages")
        plan = self.limiter.plan(replace(GRANT), ROUTE)
        assert plan is not None
        try:
            made: Any = self.limiter.reserve(plan, ROUTE, RequestSize(b"POST", "mine", content, len(body)))
        except errors.ProxyError as e:
            self.refuse(e)
            return
        if isinstance(made, LimitReservation):
            self.admit(made)
        else:
            made.then(self.admit, self.refuse)
            self.clock.pump([0] * 5)

    def admit(self, reservation: LimitReservation) -> None:
        self.held.append(reservation)
        self.heard.append((reservation.header_lines, reservation.claims, reservation.budgets))

    def refuse(self, error: Any) -> None:
        self.heard.append((type(error), error.message, error.retry, error.retry_after, error.headers))

    def play(self, steps: Sequence[Any]) -> Any:
        for what, *of in steps:
            if what == "ask":
                self.ask(*of)
            elif what == "wait":
                self.clock.advance(*of)
            elif self.held:
                held = self.held.pop(of[0] % len(self.held))
                if what == "settle":
                    held.settle(*of[1:])
                elif what == "give back":
                    held.give_back()
                else:
                    held.keep(recorded=what.endswith("recorded"))
                self.clock.advance(0)
        return self.heard


class WaysTests(SynchronousTestCase):
    @examples(150)
    @given(st.lists(STEP, max_size=30))
    def test_all_ways_are_one(self, steps: list[Any]) -> None:
        """Counted in this process, by counters of another make, and elsewhere."""
        memory = Way("memory").play(steps)
        self.assertEqual(Way("claims").play(steps), memory)
        self.assertEqual(Way("elsewhere").play(steps), memory)

    def test_what_is_told(self) -> None:
        heard = Way("memory").play([("ask", BODIES[0]), *[("ask", BODIES[1])] * 3])
        lines, claims, budgets = heard[0]
        self.assertIn(b"x-ratelimit-limit-requests: 7", lines)
        self.assertIn(b"x-ratelimit-remaining-requests: 6", lines)
        self.assertEqual([claim.amount for claim in claims[:3]], [1, 1, 1])
        self.assertEqual([unit for _, unit, _, _ in budgets], ["usd", "usd"])
        self.assertEqual(heard[3][0], errors.RateLimited)
