"""Rates and leases of several workers, counted once: in their supervisor, which they ask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llmproxy.limits.counters.local import LocalCounters, amount_within_limit, least_required
from llmproxy.limits.counters.remote_limits import LOOK
from llmproxy.model import Claim


class SharedCounters:
    """What all workers hold, each reservation under its worker's name and a number that the worker has given it.

    What passes is what JSON can say: a claim is C{[key, kind, limit, amount]}.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._counters = LocalCounters()
        self._held: dict[str, dict[int, tuple[list[Claim], list[int]]]] = {}

    @property
    def reservations(self) -> int:
        """How many are not settled."""
        return sum(map(len, self._held.values()))

    def exchange(self, worker: str, settled: Sequence[Any], wanted: Sequence[Any]) -> list[Any]:
        """Settle these, C{[number, amounts]}, then decide on those, C{[number, claims]}, in their order.

        Gives for each of those: the place that refuses or C{None}, seconds to wait, what is used of each claim, and
        seconds until each rate is whole.
        """
        now = self._seconds()
        for number, amounts in settled:
            self._settle(worker, number, amounts)
        return [self._decide(worker, number, [Claim(*claim) for claim in claims], now) for number, claims in wanted]

    def release(self, worker: str) -> int:
        """It has ended: what it held at once is free, what it used of rates stays used. Gives how many it held."""
        held = self._held.pop(worker, {})
        for claims, slots in held.values():
            for claim, slot in zip(claims, slots, strict=True):
                if claim.kind == "lease":
                    self._counters.correct(claim, slot, 0)
        return len(held)

    def _settle(self, worker: str, number: int, amounts: Sequence[int]) -> None:
        claims, slots = self._held.get(worker, {}).pop(number, ((), ()))
        for claim, slot, amount in zip(claims, slots, amounts, strict=False):
            self._counters.correct(claim, slot, amount)

    def _decide(self, worker: str, number: int, claims: list[Claim], now: float) -> list[Any]:
        counters = self._counters
        left = [counters.remaining(claim, now) for claim in claims]
        refused = _refused(claims, left)
        wait = None if refused is None else counters.wait(claims[refused], now)
        if refused is None and number != LOOK:
            slots = [self._take(claim, now) for claim in claims]
            self._held.setdefault(worker, {})[number] = (claims, slots)
            left = [
                before - (1 if claim.kind == "lease" else amount_within_limit(claim))
                for claim, before in zip(claims, left, strict=True)
            ]
        used = [claim.limit - rest for claim, rest in zip(claims, left, strict=True)]
        resets = [counters.reset(claim, now) if claim.kind == "rate" else 0.0 for claim in claims]
        return [refused, wait, used, resets]

    def _take(self, claim: Claim, now: float) -> int:
        if claim.kind == "lease":
            self._counters.lease(claim.key).held += 1
            return 0
        return self._counters.take(claim.key, amount_within_limit(claim), now)


def _refused(claims: Sequence[Claim], left: Sequence[int]) -> int | None:
    """The place of the first that does not fit."""
    return next((place for place, claim in enumerate(claims) if least_required(claim) > left[place]), None)
