"""Budgets spent in advance: this process takes a part of what the store has left, and spends that on its own."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import CancelledError, DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from llmproxy.aio import soon
from llmproxy.errors import LimitsUnavailable
from llmproxy.interfaces import IBudgetStore
from llmproxy.model import Claim

AHEAD = 256  # requests like the present one that are taken in advance, but
SHARE = 50  # never more than this part of the budget, so that one that is nearly used up can be used by all
MANY = 1024  # budgets, beyond which those of the past are forgotten
REFUSED = 1.0  # seconds for which it is remembered that nothing is left


class Allotment:
    """What this process has of one budget.

    @ivar room: What it may still spend without asking; less than nothing where requests took more than they claimed.
    @ivar held: What its requests under way have claimed.
    @ivar limit: The budget, as it was when something was taken.
    @ivar left: What the store had left then.
    """

    __slots__ = ("busy", "ends", "full_until", "held", "left", "limit", "lock", "room")

    def __init__(self) -> None:
        self.room = self.held = self.limit = self.left = 0
        self.ends = self.full_until = 0.0
        self.busy = False
        self.lock = DeferredLock()


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
        if known.room >= claim.amount:
            return known.room
        full = claim.amount > known.room + known.left and self._clock.seconds() < known.full_until
        return max(known.room, 0) if full else None

    def left(self, claim: Claim) -> int:
        """What is left of the whole budget, as far as is known here."""
        known = self._known.get(claim.key)
        return claim.limit if known is None else max(known.left + known.room, 0)

    def under_way(self, claim: Claim) -> bool:
        """Whether it would fit if the requests of this process that are under way took nothing."""
        known = self._known.get(claim.key)
        return known is not None and known.held > 0 and known.left + known.room + known.held >= claim.amount

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

    def lock(self, claim: Claim) -> DeferredLock:
        """Held by whoever asks the store, until it has spent what it asked for; so nobody waits for ever."""
        known = self._known.get(claim.key)
        if known is None:
            if len(self._known) >= self._many:
                self._forget()
            known = self._known[claim.key] = Allotment()
        return known.lock

    def _forget(self) -> None:
        """Drop what is of periods that are over; what was left of them is of no use to anybody."""
        now = self._now()
        for key, known in list(self._known.items()):
            if 0 < known.ends <= now and not known.held and not known.lock.locked:
                del self._known[key]
        self._many = max(MANY, 2 * len(self._known))

    async def take_more(self, claim: Claim) -> None:
        """Ask the store for more; the lock is held. L{LimitsUnavailable} where it does not answer."""
        known = self._known[claim.key]
        try:
            if known.room > 0 and known.limit != claim.limit:  # it was taken from a budget that has been changed
                room, known.room = known.room, 0
                await soon(self._store.give_budgets({claim.key: room}))
            least = max(claim.amount - known.room, 1)
            most = max(least, min(AHEAD * claim.amount, claim.limit // SHARE))
            taken, spent = await soon(self._store.take_budget(claim.key, least, most, claim.limit, claim.ends))
        except CancelledError:
            raise
        except Exception as e:
            raise LimitsUnavailable from e
        known.room += taken
        known.limit, known.ends, known.left = claim.limit, claim.ends, max(claim.limit - spent, 0)
        known.full_until = 0.0 if taken else self._clock.seconds() + REFUSED

    async def give_back(self, *, all_of_it: bool = False) -> None:
        """Give back what is not needed: all that was not touched since the last time, else what is more than usual.

        Where the store does not answer, what was to be given back stays spent; what is owed is told again later.
        """
        given: dict[str, int] = {}
        for key, known in list(self._known.items()):
            if known.lock.locked:
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
