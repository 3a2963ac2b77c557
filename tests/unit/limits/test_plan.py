"""All limits of a request, in the order in which they are asked."""

from __future__ import annotations

import math
import unittest
from typing import Any

from llmproxy.base.budgets import ChargedUse
from llmproxy.base.calendar_periods import Calendar
from llmproxy.config.model import LimitSettings
from llmproxy.limits.plan import LimitPlan, charges, plan, rules
from llmproxy.model import Allowance, Budget

ON_LOSS = {"requests_per_minute": "open"}


class PlanTests(unittest.TestCase):
    def test_none(self) -> None:
        found = plan([("token", "t", None), ("project", "p", Allowance())], ON_LOSS)
        self.assertEqual((found.rules, found.counts_tokens, found.counts_money), ((), False, False))

    def test_of_all_owners(self) -> None:
        """Leases first, which cost nothing to take back; budgets last, for which somebody may have to be asked."""
        token = Allowance(requests_per_minute=60, concurrency=2, budget_usd=(Budget(5, "day"), Budget(9, "month")))
        found = plan([("token", "t", token), ("API", "openai", Allowance(tokens_per_minute=7))], ON_LOSS)
        self.assertEqual(
            [(rule.key, rule.kind, rule.unit, rule.limit, rule.period) for rule in found.rules],
            [
                ("token:t:concurrency", "lease", "requests", 2, ""),
                ("token:t:requests_per_minute", "rate", "requests", 60, ""),
                ("api:openai:tokens_per_minute", "rate", "tokens", 7, ""),
                ("token:t:budget_usd", "budget", "usd", 5, "day"),
                ("token:t:budget_usd", "budget", "usd", 9, "month"),
            ],
        )
        self.assertEqual([rule.on_loss for rule in found.rules], ["closed", "open", "closed", "closed", "closed"])
        self.assertTrue(found.counts_tokens and found.counts_money)

    def test_what_must_be_known_beforehand(self) -> None:
        found = plan([("token", "t", Allowance(requests_per_minute=60, concurrency=1))], ON_LOSS)
        self.assertFalse(found.counts_tokens or found.counts_money)
        found = plan([("token", "t", Allowance(budget_tokens=(Budget(5, "lifetime"),)))], ON_LOSS)
        self.assertEqual((found.counts_tokens, found.counts_money), (True, False))


class PeriodTests(unittest.TestCase):
    """What a plan is made ready with holds until the first of its periods is over."""

    def test_until_the_first_of_its_periods_is_over(self) -> None:
        budgets = (Budget(5, "day"), Budget(9, "month"), Budget(20, "lifetime"))
        made, calendar = LimitPlan(rules("token", "t", Allowance(budget_usd=budgets), {})), Calendar()
        limits = made.follow(calendar, AT)
        self.assertIs(made.limits, limits)
        self.assertEqual((limits.begins, limits.ends), (AT - 43_200, AT + 43_200))
        keys = [f"token:t:budget_usd:{label}" for label in ("day:2025-11-25", "month:2025-11", "lifetime")]
        self.assertEqual([key for _, key, _ in limits.budgets], keys)
        self.assertEqual([claim.ends for claim in limits.claims], [AT + 43_200, AT + 5 * 86_400 + 43_200, 0.0])
        later = made.follow(calendar, limits.ends)
        self.assertEqual(later.budgets[0][1], "token:t:budget_usd:day:2025-11-26")
        self.assertEqual([claim.key for claim in limits.claimed((1, 2, 3))], keys)  # of those who came before

    def test_without_periods(self) -> None:
        limits = LimitPlan(rules("token", "t", Allowance(concurrency=1), {})).follow(Calendar(), AT)
        self.assertEqual((limits.begins, limits.ends), (0.0, math.inf))

    def test_what_is_claimed(self) -> None:
        """A request, its tokens, its dollars: each where it counts."""
        allowance = Allowance(
            requests_per_minute=6, tokens_per_minute=9, concurrency=2, budget_usd=(Budget(5, "day"),),
            budget_tokens=(Budget(5, "day"),),
        )  # fmt: skip
        made = LimitPlan(rules("token", "t", allowance, {}))
        claims = made.follow(Calendar(), AT).claimed((1, 20, 300))
        self.assertEqual([claim.amount for claim in claims], [1, 20, 1, 300, 20])


AT = 1_764_072_000.0  # 2025-11-25T12:00:00Z


def use(**more: Any) -> ChargedUse:
    given = {"project_id": "p:1", "token_id": "t1", "api": "openai", "tokens": 3, "nanos": 5 * 10**8, **more}
    return ChargedUse(given.pop("at", AT), **given)


class ChargesTests(unittest.TestCase):
    def test_every_budget_that_holds(self) -> None:
        """Of the token, the project and the API, in dollars and in tokens, for each period; under the keys of rules."""
        budgets = tuple([Budget(5, period) for period in ("day", "month", "lifetime")])
        allowance = Allowance(budget_usd=budgets, budget_tokens=budgets)
        labels = {"day": "day:2025-11-25", "month": "month:2025-11", "lifetime": "lifetime"}
        owners = (("token", "t1"), ("project", "p:1"), ("API", "openai"))
        found = [
            rule for what, name in owners for rule in rules(what, name, allowance, LimitSettings().on_loss.by_name())
        ]
        keys = {f"{rule.key}:{labels[rule.period]}": rule.unit for rule in found}
        self.assertEqual(len(keys), 18)
        charged = charges(keys, [use(), use(tokens=7)])
        self.assertEqual(charged, {key: 10**9 if unit == "usd" else 10 for key, unit in keys.items()})

    def test_others(self) -> None:
        """Not those of other owners or periods, nor what is no budget."""
        keys = ["token:t2:budget_usd:lifetime", "token:t1:budget_usd:day:2025-11-24", "project:p:budget_usd:lifetime"]
        self.assertEqual(charges([*keys, "token:t1:concurrency", ""], [use()]), {})

    def test_the_day_in_which_it_arrived(self) -> None:
        keys = ["token:t1:budget_usd:day:2025-11-24", "token:t1:budget_usd:day:2025-11-25"]
        self.assertEqual(
            charges(keys, [use(at=AT - 86400), use(nanos=25 * 10**7)]),
            dict(zip(keys, (5 * 10**8, 25 * 10**7), strict=True)),
        )

    def test_what_has_no_token_counts_for_its_project(self) -> None:
        """As when it is reserved."""
        self.assertEqual(
            charges(["token:p:1:budget_usd:lifetime"], [use(token_id="")]),
            {"token:p:1:budget_usd:lifetime": 5 * 10**8},
        )
