"""Limits on the command line."""

from __future__ import annotations

from llmproxy.model import UNLIMITED, Allowance, Budget
from tests.unit.cli.daemon import DaemonTestCase

OPTIONS = (
    *("--rpm", "60", "--tpm", "100000", "--concurrency", "5"),
    *("--budget-usd", "20/month", "--budget-usd", "2/day", "--budget-tokens", "1000000/day"),
)
KEPT = Allowance(
    requests_per_minute=60,
    tokens_per_minute=100_000,
    concurrency=5,
    budget_usd=(Budget(2_000_000_000, "day"), Budget(20_000_000_000, "month")),
    budget_tokens=(Budget(1_000_000, "day"),),
)


class LimitsTests(DaemonTestCase):
    async def test_of_a_token(self) -> None:
        await self.ok("project", "create", "--name", "Team")
        said = await self.ok("token", "create", "--project", "proj-1", *OPTIONS)
        self.assertEqual(self.store.tokens["tok-1"].allowance, KEPT)
        self.assertRegex(said, r"budget_usd +2/day, 20/month")

    async def test_of_a_project(self) -> None:
        """Set, changed one by one, and lifted."""
        await self.ok("project", "create", "--name", "Team", *OPTIONS)
        self.assertEqual(self.store.projects["proj-1"].allowance, KEPT)
        await self.ok("project", "update", "proj-1", "--rpm", "5", "--remove-limit", "concurrency")
        changed = self.store.projects["proj-1"].allowance
        self.assertEqual((changed.requests_per_minute, changed.concurrency), (5, None))
        self.assertEqual(changed.budget_usd, KEPT.budget_usd)
        lifted = [part for name in ("rpm", "tpm", "budget-usd", "budget-tokens") for part in ("--remove-limit", name)]
        await self.ok("project", "update", "proj-1", *lifted)
        self.assertEqual(self.store.projects["proj-1"].allowance, UNLIMITED)

    async def test_what_the_daemon_refuses(self) -> None:
        said = await self.fails(1, "project", "create", "--name", "Team", "--budget-usd", "20/year")
        self.assertIn("budget_usd", said)
