"""Budgets spent in advance: this process takes a part of what the store has left, and spends that on its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from llmproxy.aio import soon, within
from llmproxy.errors import LimitsUnavailable
from llmproxy.interfaces import IBudgetStore
from llmproxy.limits.counters.local import least
from llmproxy.model import Claim, Verdict

T = TypeVar("T")

AHEAD = 256  # requests like the present one that are taken in advance, but
SHARE = 50  # never more than this part of the budget, so that one that is nearly used up can be used by all
MANY = 1024  # budgets, beyond which those of the past are forgotten
REFUSED = 1.0  # seconds for which it is remembered that nothing is left
ASK_SECONDS = 8.0  # for the store to answer; its own limit is usually shorter
DECIDED_AT_ONCE = 50  # requests that are decided before the reactor has a turn


class Waiter:
    """A request that waits until the store has said what may be spent of its budgets."""

    __slots__ = ("answer", "claims", "decide")

    def __init__(
        self, claims: Sequence[Claim], decide: Callable[[], Verdict | None], leave: Callable[[Waiter], None]
    ) -> None:
        self.claims = claims
        self.decide = decide
        self.answer: Deferred[Verdict] = Deferred(lambda _: leave(self))


class Allotment:
    """What this process has of one budget.

    @ivar room: What it may still spend without asking; less than nothing where requests took more than they claimed.
    @ivar held: What its requests under way have claimed.
    @ivar limit: The budget, as it was when something was taken.
    @ivar left: What the store had left then.
    @ivar waiting: Requests that need more of it, the first to come first.
    """

    __slots__ = ("asking", "busy", "ends", "full_until", "held", "left", "limit", "room", "waiting")

    def __init__(self) -> None:
        self.room = self.held = self.limit = self.left = 0
        self.ends = self.full_until = 0.0
        self.busy = self.asking = False
        self.waiting: dict[Waiter, Claim] = {}


class Allotments:
    """All of them, by the keys of budgets.

    What is taken from the store counts as spent there until it is given back. A process that dies gives nothing
    back: what it had in advance, and what its requests under way had claimed, stays spent. So no more is ever spent
    than a budget holds, by however many processes on one store.
    """

    _log = Logger()

    def __init__(self, store: IBudgetStore, clock: IReactorTime, now: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._now = now
        self._known: dict[str, Allotment] = {}
        self._many = MANY

    def __len__(self) -> int:
        return len(self._known)

    def room(self, claim: Claim) -> int | None:
        """What may be spent at once; C{None} where the store must be asked for more with L{take_more}."""
        known = self._known.get(claim.key)
        if known is None or known.limit != claim.limit:
            return None
        if known.room >= least(claim):
            return known.room
        full = least(claim) > known.room + known.left and self._clock.seconds() < known.full_until
        return max(known.room, 0) if full else None

    def left(self, claim: Claim) -> int:
        """What is left of the whole budget, as far as is known here."""
        known = self._known.get(claim.key)
        return claim.limit if known is None else max(known.left + known.room, 0)

    def under_way(self, claim: Claim) -> bool:
        """Whether it would fit if the requests of this process that are under way took nothing."""
        known = self._known.get(claim.key)
        return known is not None and known.held > 0 and known.left + known.room + known.held >= least(claim)

    def spend(self, claim: Claim) -> None:
        known = self._known[claim.key]
        known.room -= claim.amount
        known.held += claim.amount
        known.busy = True

    def correct(self, claim: Claim, amount: int) -> None:
        """A request that had claimed so much took C{amount}."""
        known = self._known.get(claim.key)
        if known is None:  # nobody forgets one of which something is held
            return
        known.room += claim.amount - amount
        known.held -= claim.amount
        if amount < claim.amount:
            known.full_until = 0.0

    def wait(self, claims: Sequence[Claim], decide: Callable[[], Verdict | None]) -> Deferred[Verdict]:
        """Fire with what C{decide} says once it says something; L{LimitsUnavailable} where the store does not answer.

        One question to the store for each budget is under way at a time; it asks for the sum of what all who wait
        need, who are then decided in the order in which they came. So a thousand at once are two questions.
        """
        waiter = Waiter(claims, decide, self._withdraw)
        self._decide(waiter)
        return waiter.answer

    def _decide(self, waiter: Waiter) -> None:
        verdict = waiter.decide()
        if verdict is not None:
            self._withdraw(waiter)
            waiter.answer.callback(verdict)
            return
        lacking = {claim.key: claim for claim in waiter.claims if self.room(claim) is None}
        for key, claim in lacking.items():
            self._entry(key).waiting[waiter] = claim
        for key in lacking:
            if not self._known[key].asking:
                Deferred.fromCoroutine(self._ask(key)).addErrback(
                    lambda failure: self._log.failure("Asking for more of a budget failed.", failure)
                )

    def _withdraw(self, waiter: Waiter) -> None:
        for claim in waiter.claims:
            known = self._known.get(claim.key)
            if known is not None:
                known.waiting.pop(waiter, None)

    def _entry(self, key: str) -> Allotment:
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= self._many:
                self._forget()
            known = self._known[key] = Allotment()
        return known

    def _forget(self) -> None:
        """Drop what is of periods that are over; what was left of them is of no use to anybody."""
        now = self._now()
        for key, known in list(self._known.items()):
            if 0 < known.ends <= now and not known.held and not known.asking and not known.waiting:
                del self._known[key]
        self._many = max(MANY, 2 * len(self._known))

    async def _ask(self, key: str) -> None:
        """Ask the store for as long as somebody waits, and decide those who do."""
        known = self._known[key]
        known.asking = True
        try:
            while known.waiting:
                try:
                    await self._take_more(known, list(known.waiting.values()))
                except LimitsUnavailable:
                    await self._decide_all(known, self._refuse)
                else:
                    await self._decide_all(known, self._decide)
        finally:
            known.asking = False

    async def _decide_all(self, known: Allotment, decide: Callable[[Waiter], None]) -> None:
        """Those who waited when the store answered, some of them in each turn of the reactor."""
        waiting = list(known.waiting)
        for number, waiter in enumerate(waiting, 1):
            if known.waiting.pop(waiter, None) is not None:  # else it has left
                decide(waiter)
            if not number % DECIDED_AT_ONCE and number < len(waiting):
                await deferLater(self._clock, 0)

    def _refuse(self, waiter: Waiter) -> None:
        self._withdraw(waiter)
        waiter.answer.errback(LimitsUnavailable())

    async def _take_more(self, known: Allotment, claims: Sequence[Claim]) -> None:
        """Ask the store for what all of them need. L{LimitsUnavailable} where it does not answer."""
        claim = claims[-1]
        if known.room > 0 and known.limit != claim.limit:  # it was taken from a budget that has been changed
            room, known.room = known.room, 0
            await self._answer(self._store.give_budgets({claim.key: room}))
        needed = [least(each) for each in claims if each.limit == claim.limit]
        smallest = max(min(needed) - known.room, 1)
        ahead = min(AHEAD * max(needed), claim.limit // SHARE)
        most = max(smallest, sum(needed) - known.room, ahead)
        taken, spent = await self._answer(self._store.take_budget(claim.key, smallest, most, claim.limit, claim.ends))
        known.room += taken
        known.limit, known.ends, known.left = claim.limit, claim.ends, max(claim.limit - spent, 0)
        known.full_until = 0.0 if taken == most else self._clock.seconds() + REFUSED

    async def _answer(self, asked: Awaitable[T]) -> T:
        try:
            return await within(ASK_SECONDS, self._clock, soon(asked), LimitsUnavailable())
        except (CancelledError, LimitsUnavailable):
            raise
        except Exception as e:
            raise LimitsUnavailable from e

    async def give_back(self, *, all_of_it: bool = False) -> None:
        """Give back what is not needed: all that was not touched since the last time, else what is more than usual.

        Where the store does not answer, what was to be given back stays spent; what is owed is told again later.
        """
        given: dict[str, int] = {}
        for key, known in list(self._known.items()):
            if known.asking or known.waiting:
                continue
            needed = known.busy and not all_of_it and not 0 < known.ends <= self._now()
            keep = known.limit // SHARE if needed else 0
            known.busy = False
            if known.room < 0 or known.room > keep:
                given[key] = known.room if known.room < 0 else known.room - keep
                known.room -= given[key]
            if not known.held and not known.room:
                del self._known[key]
        if not given:
            return
        try:
            await soon(self._store.give_budgets(given))
        except CancelledError:
            raise
        except Exception as e:
            self._log.warn(
                "What was left of {count} budgets could not be given back: {error}", count=len(given), error=str(e)
            )
            for key, amount in given.items():
                if amount < 0:
                    self._known.setdefault(key, Allotment()).room += amount

    def spare(self, key: str) -> int:
        """What this process has in advance of a budget, and no request has claimed."""
        known = self._known.get(key)
        return 0 if known is None else known.room
