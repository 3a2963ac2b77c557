"""What a process allows on its own while those who count for all cannot be asked."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from llmproxy.limits.counters.local import SOON, Tally, least
from llmproxy.model import Claim, Verdict

REMEMBERED = 10_000  # budgets of which it is known what was left


class Taken(NamedTuple):
    """A ticket for what was allowed here: the claims as they were made, as they were shared out, and their slots."""

    claims: tuple[Claim, ...]
    shared: tuple[Claim | None, ...]
    slots: tuple[int, ...]


class Shares:
    """This process's part of each limit: as C{on_loss} says, and by how many processes there were.

    @ivar processes: How many there were when that was last known.
    """

    processes = 1

    def __init__(self) -> None:
        self._tally = Tally()
        self._left: OrderedDict[str, int] = OrderedDict()
        self._spent: dict[str, int] = {}

    def heard(self, key: str, left: int) -> None:
        """So much was left of a budget, by who counts for all."""
        self._left[key] = left
        self._left.move_to_end(key)
        if self._spent:
            self._spent.pop(key, None)
        if len(self._left) > REMEMBERED:
            self._left.popitem(last=False)

    def reserve(self, claims: Sequence[Claim], now: float) -> Verdict:
        shared = tuple([self._shared(claim) for claim in claims])
        for place, (claim, mine) in enumerate(zip(claims, shared, strict=True)):
            if claim.on_loss == "closed":
                return Verdict(place, SOON, lost=True)
            if mine is not None and not self._fits(mine, now):
                wait = None if mine.kind == "budget" else self._tally.wait(mine, now)
                return Verdict(place, SOON if wait is None else wait, lost=mine.kind == "budget")
        slots = tuple([0 if mine is None else self._take(mine, now) for mine in shared])
        told = [self._told(claim, mine, now) for claim, mine in zip(claims, shared, strict=True)]
        return Verdict(
            None,
            remaining=tuple([remaining for remaining, _ in told]),
            resets=tuple([reset for _, reset in told]),
            ticket=Taken(tuple(claims), shared, slots),
        )

    def _told(self, claim: Claim, mine: Claim | None, now: float) -> tuple[int, float]:
        if mine is None or mine.kind == "budget":
            return claim.limit, 0.0
        return max(self._tally.left(mine, now), 0), self._tally.reset(mine, now) if mine.kind == "rate" else 0.0

    def _shared(self, claim: Claim) -> Claim | None:
        if claim.on_loss != "local-share":
            return None
        if claim.kind == "budget":
            return claim._replace(limit=self._left.get(claim.key, 0) // self.processes)
        return claim._replace(limit=max(claim.limit // self.processes, 1))

    def _fits(self, mine: Claim, now: float) -> bool:
        if mine.kind == "budget":
            return self._spent.get(mine.key, 0) + least(mine) <= mine.limit
        return min(mine.amount, mine.limit) <= self._tally.left(mine, now)

    def _take(self, mine: Claim, now: float) -> int:
        if mine.kind != "budget":
            return self._tally.take(mine, now)
        self._spent[mine.key] = self._spent.get(mine.key, 0) + mine.amount
        return 0

    def settle(self, taken: Taken, amounts: Sequence[int]) -> None:
        for mine, slot, amount in zip(taken.shared, taken.slots, amounts, strict=True):
            if mine is None:
                continue
            if mine.kind != "budget":
                self._tally.correct(mine, slot, amount)
            elif mine.key in self._spent:
                self._spent[mine.key] += amount - mine.amount
