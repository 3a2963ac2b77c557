"""Notices what is spent of budgets, and alerts: once for each budget, period and threshold, in whatever process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from twisted.application.service import Service
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from llmproxy.base.background import Loop
from llmproxy.base.memo import BoundedMemo
from llmproxy.errors import StoreUnavailable
from llmproxy.instruments import Counter, Instrument
from llmproxy.interfaces import IInstrumented
from llmproxy.limits.counted import CountedLimits
from llmproxy.limits.plan import UNENFORCED, LimitPlan, Rule
from llmproxy.model import BudgetAlert, Claim

LOOK_SECONDS = 1.0  # between two looks at the budgets that are in use
IN_USE_SECONDS = 10.0  # for which one is looked at after a request: its ledger line comes some seconds later
MAX_BUDGETS_IN_USE = 100_000
BUDGETS_PER_QUERY = 500
MAX_REMEMBERED_ALERTS = 100_000
PURGE_SECONDS = 3600.0

Charged = Callable[[Sequence[Claim]], Awaitable[Mapping[str, int]]]


class BudgetInUse(NamedTuple):
    """A budget that requests use now.

    @ivar until: When it is looked at for the last time, monotonic.
    @ivar refused: Whether a request was refused because too little was left.
    """

    rule: Rule
    claim: Claim
    until: float
    refused: bool = False


@implementer(IInstrumented)
class BudgetAlerts(Service):
    """Is told by the limiter which budgets are used, and looks once a second how much of these is spent.

    A request costs an entry in a dictionary; nothing is waited for. What counts is what the ledger has, so that neither
    what requests under way may use nor what processes have in advance alerts anybody.
    """

    name: Any = "budget_alerts"

    def __init__(
        self,
        thresholds: Sequence[int],
        charged: Charged,
        record: Callable[[Sequence[BudgetAlert]], Awaitable[list[BudgetAlert]]],
        report: Callable[[BudgetAlert], Awaitable[None]],
        resume: Callable[[], Awaitable[object]],
        purge: Callable[[], Awaitable[object]],
        clock: IReactorTime,
        now: Callable[[], float],
        new_id: Callable[[], str],
    ) -> None:
        """
        @param thresholds: In percent; without any, nothing is alerted.
        @param charged: Gives what is spent of each of these budgets, by key.
        @param record: Gives those alerts that nobody has recorded before; C{report}: tells people of one of these.
        @param resume: Goes on with what another process has left; called once, and when the settings have
            changed. C{purge}: forgets what is long over.
        @param now: Seconds since the epoch.
        """
        self._thresholds: list[int] = []
        self._charged = charged
        self._record = record
        self._report = report
        self._resume = resume
        self._purge = purge
        self._clock = clock
        self._now = now
        self._new_id = new_id
        self._in_use: dict[str, BudgetInUse] = {}
        self._observed: list[tuple[LimitPlan, CountedLimits]] = []
        self.follow(thresholds)
        self._known: BoundedMemo[tuple[str, int, bool, int], bool] = BoundedMemo(MAX_REMEMBERED_ALERTS)
        self._alerts = {"threshold": 0, "refusal": 0}
        self._overlooked = 0
        self._next_purge = clock.seconds() + PURGE_SECONDS
        self._looking = Loop("budget_alerts", self._look, LOOK_SECONDS, clock)
        self.tasks = (self._looking,)

    def instruments(self) -> Iterator[Instrument]:
        yield Counter("budget_alerts", "Alerts of budgets that this process was the first to notice.",
                      lambda: self._alerts, "kind")  # fmt: skip
        yield Counter("budget_alerts_overlooked", "Uses of budgets that were not looked at, as too many were in use.",
                      lambda: self._overlooked)  # fmt: skip

    def startService(self) -> None:
        Service.startService(self)
        self._looking.start()

    def stopService(self) -> None:
        Service.stopService(self)
        self._looking.stop()

    def follow(self, thresholds: Sequence[int]) -> None:
        """Go by these from now on; what was alerted before is not alerted again, but what nobody has got is sent."""
        self._thresholds = sorted(set(thresholds))
        self._resumed = False
        if not self._thresholds:
            self._in_use.clear()

    # BudgetObserver

    def spent(self, plan: LimitPlan, limits: CountedLimits) -> None:
        if not self._thresholds:
            return
        limits.observed = True
        self._observed.append((plan, limits))
        self._use_all(plan, limits)

    def _use_all(self, plan: LimitPlan, limits: CountedLimits) -> None:
        until = self._clock.seconds() + IN_USE_SECONDS
        for rule, (_, key, _) in zip(plan.budgets, limits.budgets, strict=True):
            known = self._in_use.get(key)
            if known is None or known.rule != rule or known.until < until - LOOK_SECONDS:
                claim = next(claim for claim in limits.claims if claim.key == key)
                self._use(BudgetInUse(rule, claim, until))

    def refused(self, rule: Rule, claim: Claim) -> None:
        if self._thresholds:
            self._use(BudgetInUse(rule, claim, self._clock.seconds() + IN_USE_SECONDS, refused=True))

    def _use(self, budget: BudgetInUse) -> None:
        before = self._in_use.get(budget.claim.key)
        if before is None and len(self._in_use) >= MAX_BUDGETS_IN_USE:
            self._overlooked += 1
            return
        if before is not None and before.refused and before.rule == budget.rule:
            budget = budget._replace(refused=True)
        self._in_use[budget.claim.key] = budget

    def _renew(self) -> None:
        """Of those that are observed nobody knows when they were used last: it may have been just now."""
        observed, self._observed = self._observed, []
        for plan, limits in observed:
            limits.observed = False
            if self._thresholds:
                self._use_all(plan, limits)

    # What goes on in the background

    async def _look(self) -> None:
        try:
            await self._look_at_all()
        except StoreUnavailable:
            return  # it is looked at again, for as long as it is in use

    async def _look_at_all(self) -> None:
        if not self._resumed:
            await self._resume()
            self._resumed = True
        if self._clock.seconds() >= self._next_purge:
            self._next_purge = self._clock.seconds() + PURGE_SECONDS
            await self._purge()
        self._renew()
        looked_at = list(self._in_use.values())
        for start in range(0, len(looked_at), BUDGETS_PER_QUERY):
            await self._look_at(looked_at[start : start + BUDGETS_PER_QUERY])
        self._renew()
        now = self._clock.seconds()
        for budget in looked_at:
            if budget.until <= now and self._in_use.get(budget.claim.key) is budget:
                del self._in_use[budget.claim.key]

    async def _look_at(self, budgets: Sequence[BudgetInUse]) -> None:
        open_ = [budget for budget in budgets if any(True for _ in self._unknown(budget))]
        if not open_:
            return
        spent = await self._charged([budget.claim for budget in open_])
        reached = [alert for budget in open_ for alert in self._reached(budget, spent.get(budget.claim.key, 0))]
        if not reached:
            return
        new = await self._record(reached)
        for alert in reached:
            self._known[alert.budget, alert.limit, alert.soft, alert.threshold] = True
        for alert in new:
            self._alerts[alert.kind] += 1
            await self._report(alert)

    def _unknown(self, budget: BudgetInUse) -> Iterator[tuple[str, int, bool, int]]:
        """What of the budget has not been alerted yet, as far as is known here: kind, amount, soft, threshold."""
        rule, key = budget.rule, budget.claim.key
        amounts = [(rule.limit, False)] if rule.limit < UNENFORCED else []
        amounts += [(rule.soft, True)] if rule.soft else []
        for amount, soft in amounts:
            for threshold in self._thresholds:
                if (key, amount, soft, threshold) not in self._known:
                    yield "threshold", amount, soft, threshold
        if budget.refused and (key, rule.limit, False, 0) not in self._known:
            yield "refusal", rule.limit, False, 0

    def _reached(self, budget: BudgetInUse, spent: int) -> Iterator[BudgetAlert]:
        rule, claim = budget.rule, budget.claim
        for kind, amount, soft, threshold in self._unknown(budget):
            if kind == "refusal" or spent * 100 >= amount * threshold:
                yield BudgetAlert(
                    id=self._new_id(),
                    at=self._now(),
                    kind=kind,
                    threshold=threshold,
                    soft=soft,
                    owner=rule.owner.lower(),
                    owner_id=rule.owner_id,
                    budget=claim.key,
                    unit=rule.unit,
                    period=rule.period,
                    limit=amount,
                    spent=spent,
                    ends=claim.ends,
                )
