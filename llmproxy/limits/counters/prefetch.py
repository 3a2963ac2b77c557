"""Budgets spent in advance: this process takes a part of what the store has left, and spends that on its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from llmproxy.base.coroutines import as_deferred, within
from llmproxy.errors import LimitsUnavailable
from llmproxy.interfaces import IBudgetStore
from llmproxy.limits.counters.local import least_required
from llmproxy.model import Claim, Verdict

T = TypeVar("T")

REQUESTS_AHEAD = 256  # requests like the present one that are taken in advance, but
LEAST_SHARES = 50  # never more than this part of the budget, nor
LEAST_SHARES_OF_REST = (
    10  # than this part of what was left of it, so that one that is nearly used up can be used by all
)
REFILL_PART = 4  # of what is taken in advance: with less left, more is asked for
MAX_BUDGETS_BEFORE_SWEEP = 1024  # budgets, beyond which those of the past are forgotten
EXHAUSTED_SECONDS = 1.0  # seconds for which it is remembered that nothing is left
STORE_TIMEOUT_SECONDS = 8.0  # for the store to answer; its own limit is usually shorter
DECISIONS_PER_TURN = 50  # requests that are decided before the reactor has a turn


class WaitingRequest:
    """A request that waits until the store has said what may be spent of its budgets."""

    __slots__ = ("answer", "claims", "decide")

    def __init__(
        self, claims: Sequence[Claim], decide: Callable[[], Verdict | None], leave: Callable[[WaitingRequest], None]
    ) -> None:
        self.claims = claims
        self.decide = decide
        self.answer: Deferred[Verdict] = Deferred(lambda _: leave(self))


class PrefetchedBudget:
    """What this process has of one budget.

    @ivar room: What it may still spend without asking; less than nothing where requests took more than they claimed.
    @ivar held: What its requests under way have claimed.
    @ivar low: With less room than this, L{refill} asks for more, so that hardly a request has to wait for it.
    @ivar limit: The budget, as it was when something was taken, and C{claim}: for which request that was.
    @ivar left: What the store had left then; C{elsewhere}, what other processes had, where that was not enough.
    @ivar full_until: Until when the store is known to have no more, monotonic.
    @ivar unmeasured: What requests took of which their lines in the ledger will not tell.
    @ivar waiting: Requests that need more of it, the first to come first.
    """

    __slots__ = (
        "asking",
        "busy",
        "claim",
        "elsewhere",
        "ends",
        "full_until",
        "held",
        "left",
        "limit",
        "low",
        "refill",
        "room",
        "unmeasured",
        "waiting",
    )

    def __init__(self, refill: Callable[[], object] = bool) -> None:
        self.refill = refill
        self.claim: Claim | None = None
        self.room = self.held = self.limit = self.left = self.elsewhere = self.unmeasured = self.low = 0
        self.ends = self.full_until = 0.0
        self.busy = self.asking = False
        self.waiting: dict[WaitingRequest, Claim] = {}


class BudgetPrefetch:
    """All of them, by the keys of budgets.

    What is taken from the store counts as spent there until it is given back. So no more is ever spent than a budget
    holds, by however many processes on one store. What a process that dies had in advance, and what its requests under
    way had claimed, stays spent until its ledger is recovered: then the store gives back what no line accounts for.

    @ivar known: What this process has, or has asked for. None is forgotten of which something is held.
    """

    _log = Logger()

    def __init__(
        self,
        store: IBudgetStore,
        clock: IReactorTime,
        now: Callable[[], float],
        forgotten: Callable[[], object] = bool,
    ) -> None:
        """
        @param forgotten: Called when some of them are known no more.
        """
        self._forgotten = forgotten
        self._store = store
        self._clock = clock
        self._now = now
        self.known: dict[str, PrefetchedBudget] = {}
        self._many = MAX_BUDGETS_BEFORE_SWEEP

    def __len__(self) -> int:
        return len(self.known)

    def room(self, claim: Claim) -> int | None:
        """What may be spent at once; C{None} where the store must be asked for more with L{take_more}."""
        known = self.known.get(claim.key)
        if known is None or known.limit != claim.limit:
            return None
        if known.room >= least_required(claim):
            return known.room
        full = least_required(claim) > known.room + known.left and self._clock.seconds() < known.full_until
        return max(known.room, 0) if full else None

    def remaining(self, claim: Claim) -> int:
        """What is left of the whole budget, as far as is known here."""
        known = self.known.get(claim.key)
        return claim.limit if known is None else max(known.left + known.room, 0)

    def under_way(self, claim: Claim) -> bool:
        """Whether it would fit if requests under way took nothing, and other processes needed nothing."""
        known = self.known.get(claim.key)
        if known is None or not known.held + known.elsewhere > 0:
            return False
        return known.left + known.room + known.held + known.elsewhere >= least_required(claim)

    def look_again(self, key: str) -> None:
        """The store may have more of a budget than it had when it was last asked."""
        if (known := self.known.get(key)) is not None:
            known.full_until = 0.0

    def wait(self, claims: Sequence[Claim], decide: Callable[[], Verdict | None]) -> Deferred[Verdict]:
        """Fire with what C{decide} says once it says something; L{LimitsUnavailable} where the store does not answer.

        One question to the store for each budget is under way at a time; it asks for the sum of what all who wait
        need, who are then decided in the order in which they came. So a thousand at once are two questions.
        """
        waiter = WaitingRequest(claims, decide, self._withdraw)
        self._decide(waiter)
        return waiter.answer

    def _decide(self, waiter: WaitingRequest) -> None:
        verdict = waiter.decide()
        if verdict is not None:
            self._withdraw(waiter)
            waiter.answer.callback(verdict)
            return
        lacking = {claim.key: claim for claim in waiter.claims if self.room(claim) is None}
        for key, claim in lacking.items():
            self._entry(key).waiting[waiter] = claim
        for key in lacking:
            if not self.known[key].asking:
                self._start_asking(key)

    def _withdraw(self, waiter: WaitingRequest) -> None:
        for claim in waiter.claims:
            known = self.known.get(claim.key)
            if known is not None:
                known.waiting.pop(waiter, None)

    def _entry(self, key: str) -> PrefetchedBudget:
        known = self.known.get(key)
        if known is None:
            if len(self.known) >= self._many:
                self._forget()
            known = self.known[key] = PrefetchedBudget(partial(self._refill, key))
        return known

    def _refill(self, key: str) -> None:
        """Little is left of what was taken in advance."""
        known = self.known.get(key)
        if known is not None and not known.asking:
            self._start_asking(key, ahead=True)

    def _start_asking(self, key: str, *, ahead: bool = False) -> None:
        Deferred.fromCoroutine(self._ask(key, ahead=ahead)).addErrback(
            lambda failure: self._log.failure("Asking for more of a budget failed.", failure)
        )

    def _forget(self) -> None:
        """Drop what is of periods that are over; what was left of them is of no use to anybody."""
        now = self._now()
        for key, known in list(self.known.items()):
            if 0 < known.ends <= now and not known.held and not known.asking and not known.waiting:
                self._drop(key)
        self._many = max(MAX_BUDGETS_BEFORE_SWEEP, 2 * len(self.known))

    def _drop(self, key: str) -> None:
        del self.known[key]
        self._forgotten()

    async def _ask(self, key: str, *, ahead: bool) -> None:
        """Ask the store for as long as somebody waits, and decide those who do.

        @param ahead: Whether to ask although nobody waits.
        """
        known = self.known[key]
        known.asking, known.low = True, 0
        try:
            while known.waiting or (ahead and known.claim is not None):
                claims, ahead = list(known.waiting.values()), False
                if not claims and known.claim is not None:
                    claims = [known.claim]
                try:
                    await self._take_more(known, claims)
                except LimitsUnavailable:
                    await self._decide_all(known, self._refuse)
                else:
                    await self._decide_all(known, self._decide)
        finally:
            known.asking = False

    async def _decide_all(self, known: PrefetchedBudget, decide: Callable[[WaitingRequest], None]) -> None:
        """Those who waited when the store answered, some of them in each turn of the reactor."""
        waiting = list(known.waiting)
        for number, waiter in enumerate(waiting, 1):
            if known.waiting.pop(waiter, None) is not None:  # else it has left
                decide(waiter)
            if not number % DECISIONS_PER_TURN and number < len(waiting):
                await deferLater(self._clock, 0)

    def _refuse(self, waiter: WaitingRequest) -> None:
        self._withdraw(waiter)
        waiter.answer.errback(LimitsUnavailable())

    async def _take_more(self, known: PrefetchedBudget, claims: Sequence[Claim]) -> None:
        """Ask the store for what all of them need. L{LimitsUnavailable} where it does not answer."""
        claim = claims[-1]
        if known.room > 0 and known.limit != claim.limit:  # it was taken from a budget that has been changed
            room, known.room = known.room, 0
            await self._answer(self._store.give_budgets({claim.key: room}))
        needed = [least_required(each) for each in claims if each.limit == claim.limit]
        smallest = max(min(needed) - known.room, 1)
        ahead = min(
            REQUESTS_AHEAD * max(needed),
            self._share(known) if known.limit == claim.limit else claim.limit // LEAST_SHARES,
        )
        most = max(smallest, sum(needed) - known.room, ahead - known.room)
        advance = await self._answer(self._store.take_budget(claim.key, smallest, most, claim.limit, claim.ends))
        known.room += advance.amount
        known.limit, known.ends, known.claim = claim.limit, claim.ends, claim
        known.low = ahead // REFILL_PART if advance.amount == most else 0
        known.left, known.elsewhere = max(claim.limit - advance.spent, 0), advance.elsewhere
        known.full_until = 0.0 if advance.amount == most else self._clock.seconds() + EXHAUSTED_SECONDS

    def _share(self, known: PrefetchedBudget) -> int:
        """What this process may have in advance without keeping it from others."""
        return min(known.limit // LEAST_SHARES, known.left // LEAST_SHARES_OF_REST)

    async def _answer(self, asked: Awaitable[T]) -> T:
        try:
            return await within(STORE_TIMEOUT_SECONDS, self._clock, as_deferred(asked), LimitsUnavailable())
        except (CancelledError, LimitsUnavailable):
            raise
        except Exception as e:
            raise LimitsUnavailable from e

    async def give_back(self, *, idle: bool = False, all_of_it: bool = False) -> None:
        """Give back what is more than this process's share, and tell what the ledger will not.

        Where the store does not answer, what was to be given back stays spent; what is owed is told again later.

        @param idle: Give back all of what was not touched since this was last said.
        """
        given: dict[str, int] = {}
        unmeasured: dict[str, int] = {}
        for key, known in list(self.known.items()):
            if known.asking or known.waiting:
                continue
            needed = (known.busy or not idle) and not all_of_it and not 0 < known.ends <= self._now()
            keep = self._share(known) if needed else 0
            if idle:
                known.busy = False
            if known.unmeasured:
                unmeasured[key], known.unmeasured = known.unmeasured, 0
            if known.room < 0 or known.room > keep:
                given[key] = known.room if known.room < 0 else known.room - keep
                known.room -= given[key]
                known.left = max(known.left + given[key], 0)
            if (idle or not needed) and not known.held and not known.room:
                self._drop(key)
        await self._tell(self._store.give_budgets, given, self._owe_again)
        await self._tell(self._store.account_budgets, unmeasured, self.untold)

    async def _tell(
        self,
        tell: Callable[[dict[str, int]], Awaitable[None]],
        amounts: dict[str, int],
        failed: Callable[[dict[str, int]], None],
    ) -> None:
        if not amounts:
            return
        try:
            await within(STORE_TIMEOUT_SECONDS, self._clock, as_deferred(tell(amounts)), LimitsUnavailable())
        except CancelledError:
            raise
        except Exception as e:
            self._log.warn("The store was not told of {count} budgets: {error}", count=len(amounts), error=str(e))
            failed(amounts)

    def _owe_again(self, given: dict[str, int]) -> None:
        for key, amount in given.items():
            if amount < 0:
                self.known.setdefault(key, PrefetchedBudget()).room += amount

    def untold(self, amounts: Mapping[str, int]) -> None:
        """Requests took so much, of which no line of the ledger will tell: the store is told."""
        for key, amount in amounts.items():
            self.known.setdefault(key, PrefetchedBudget()).unmeasured += amount

    def spare(self, key: str) -> int:
        """What this process has in advance of a budget, and no request has claimed."""
        known = self.known.get(key)
        return 0 if known is None else known.room
