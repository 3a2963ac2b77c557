"""What is alerted, and when; with the store, Redis and workers in tests/integration/test_budget_alerts.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from unittest import TestCase

from twisted.internet.task import Clock

from llmproxy.base.calendar_periods import Calendar
from llmproxy.errors import StoreUnavailable
from llmproxy.limits.budget_alerts import IN_USE_SECONDS, LOOK_SECONDS, BudgetAlerts
from llmproxy.limits.plan import plan
from llmproxy.model import Allowance, Budget, BudgetAlert, Claim

BOTH = Allowance(budget_tokens=(Budget(1000, "day"),), soft_budget_tokens=(Budget(500, "day"),))
RAISED = Allowance(budget_tokens=(Budget(100_000, "day"),), soft_budget_tokens=(Budget(500, "day"),))
PLAN = plan([("token", "t", BOTH)], {})
LIMITS = PLAN.follow(Calendar(), 1_795_608_000.0)  # 2026-11-25T12:00:00Z
CLAIM = LIMITS.claims[0]


class BudgetAlertTests(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.spent: Mapping[str, int] = {CLAIM.key: 0}
        self.looks = 0
        self.down = False
        self.recorded: set[tuple[str, int, bool, int]] = set()
        self.told: list[tuple[str, int, bool]] = []
        self.alerts = BudgetAlerts(
            (80, 100), self.charged, self.record, self.report, self.nothing, self.nothing,
            self.clock, lambda: 5.0, map(str, count()).__next__,
        )  # fmt: skip
        self.alerts.startService()
        self.addCleanup(self.alerts.stopService)

    async def charged(self, claims: Sequence[Claim]) -> Mapping[str, int]:
        self.looks += 1
        if self.down:
            raise StoreUnavailable
        return self.spent

    async def record(self, alerts: Sequence[BudgetAlert]) -> list[BudgetAlert]:
        new = [each for each in alerts if (each.budget, each.limit, each.soft, each.threshold) not in self.recorded]
        self.recorded.update((each.budget, each.limit, each.soft, each.threshold) for each in new)
        return new

    async def report(self, alert: BudgetAlert) -> None:
        self.told.append((alert.kind, alert.threshold, alert.soft))

    async def nothing(self) -> None:
        pass

    def use(self, spent: int) -> None:
        self.spent = {CLAIM.key: spent}
        self.alerts.spent(PLAN, LIMITS)
        self.clock.advance(LOOK_SECONDS)

    def test_each_threshold_once(self) -> None:
        """Of the budget that refuses and of the one that warns, as soon as so much is spent."""
        self.use(399)
        self.assertEqual(self.told, [])
        self.use(400)
        self.assertEqual(self.told, [("threshold", 80, True)])
        self.use(799)
        self.assertEqual(self.told[1:], [("threshold", 100, True)])
        self.use(1000)
        self.use(1000)
        self.assertEqual(self.told[2:], [("threshold", 80, False), ("threshold", 100, False)])

    def test_what_another_process_recorded(self) -> None:
        """Is told by that one."""
        self.recorded.add((CLAIM.key, 500, True, 80))
        self.use(400)
        self.assertEqual(self.told, [])

    def test_a_refusal(self) -> None:
        """Is told once, with however little spent; a budget that only warns has none."""
        for _ in range(2):
            self.alerts.refused(PLAN.rules[0], CLAIM)
            self.clock.advance(LOOK_SECONDS)
        self.assertEqual(self.told, [("refusal", 0, False)])

    def test_a_budget_that_is_raised_after_a_refusal(self) -> None:
        """Is another one, of which nothing was refused."""
        self.alerts.refused(PLAN.rules[0], CLAIM)
        self.clock.advance(LOOK_SECONDS)
        raised = plan([("token", "t", RAISED)], {})
        self.alerts.spent(raised, raised.follow(Calendar(), 1_795_608_000.0))
        self.clock.pump([LOOK_SECONDS] * 3)
        self.assertEqual(self.told, [("refusal", 0, False)])

    def test_what_nobody_uses_is_not_asked_for(self) -> None:
        """Some seconds after the last request no question is asked any more."""
        self.use(1)
        self.clock.pump([LOOK_SECONDS] * int(IN_USE_SECONDS + 2))
        looks = self.looks
        self.clock.pump([LOOK_SECONDS] * 20)
        self.assertEqual(self.looks, looks)

    def test_what_is_used_all_the_time(self) -> None:
        """Is told once between two looks, and looked at for as long after the last of these as ever."""
        self.clock.advance(LOOK_SECONDS / 2)
        self.alerts.spent(PLAN, LIMITS)
        self.assertTrue(LIMITS.observed)
        self.clock.advance(LOOK_SECONDS)
        self.assertFalse(LIMITS.observed)
        self.clock.pump([LOOK_SECONDS] * int(IN_USE_SECONDS - 2))
        looks = self.looks
        self.clock.advance(LOOK_SECONDS)
        self.assertEqual(self.looks, looks + 1)

    def test_what_is_all_told_is_not_asked_for(self) -> None:
        """A budget that is used up costs no question."""
        self.use(1000)
        looks = self.looks
        self.use(1000)
        self.assertEqual(self.looks, looks)

    def test_while_the_store_does_not_answer(self) -> None:
        """It is told when it does again."""
        self.down = True
        self.use(400)
        self.down = False
        self.clock.advance(LOOK_SECONDS)
        self.assertEqual(self.told, [("threshold", 80, True)])
