"""All limits of a request, in the order in which they are asked."""

from __future__ import annotations

import unittest

from llmproxy.limits.plan import plan
from llmproxy.model import Allowance, Budget

ON_LOSS = {"requests_per_minute": "open"}


class PlanTests(unittest.TestCase):
    def test_none(self) -> None:
        found = plan([("token", "t", None), ("project", "p", Allowance())], ON_LOSS)
        self.assertEqual(found, ((), (), False, False))

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
