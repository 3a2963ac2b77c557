"""Which of several upstreams, or of several keys, the next request goes to. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from math import ceil, inf, log
from typing import Literal, Protocol, TypeVar

Balance = Literal["least_busy", "round_robin", "failover", "affinity"]
MAX_OVERLOAD = 1.25  # times its share of what is in flight, that one may have for the sake of affinity


class Balanced(Protocol):
    """One of those to choose from.

    @ivar weight: How much it gets compared with others; C{priority}: the lowest number there is comes first.
    @ivar turn: How much it has had already, for its weight; see L{choose}.
    @ivar identity: Tells it from all others, also after a restart and in other processes.
    """

    weight: int
    priority: int
    in_flight: int
    turn: float
    identity: bytes


B = TypeVar("B", bound=Balanced)


class Place(Protocol):
    """Where a request may go: one of several upstreams, with one of several keys."""

    @property
    def upstream(self) -> Balanced: ...
    @property
    def state(self) -> Balanced: ...


P = TypeVar("P", bound=Place)


def choose_place(balance: Balance, places: Sequence[P], hint: bytes = b"") -> P:
    """One of the places, of which there must be one: first its upstream is chosen, and then the key there."""
    upstreams = list(dict.fromkeys([place.upstream for place in places]))
    upstream = choose(balance, upstreams, hint)
    there = {place.state: place for place in places if place.upstream is upstream}
    return there[choose(balance, list(there), hint)]


def choose(balance: Balance, candidates: Sequence[B], hint: bytes = b"") -> B:
    """One of the candidates, of which there must be one; its turn is taken.

    @param hint: What requests have in common that are to go together; C{b""} where nothing is known.
    """
    if len(candidates) == 1:
        return candidates[0]
    first = min(each.priority for each in candidates)
    level = [each for each in candidates if each.priority == first]
    if balance == "failover":
        return level[0]
    if balance == "affinity" and hint:
        return _most_affine(level, hint)
    top = max(each.turn for each in level)
    floor = top - max(1 / each.weight for each in level)  # whoever was away does not get all that it has missed
    if balance == "round_robin":
        chosen = min(level, key=lambda each: max(each.turn, floor) + 1 / each.weight)
    else:
        chosen = min(level, key=lambda each: (each.in_flight / each.weight, max(each.turn, floor) + 1 / each.weight))
    chosen.turn = max(chosen.turn, floor) + 1 / chosen.weight
    return chosen


def _most_affine(level: Sequence[B], hint: bytes) -> B:
    """Rendezvous hashing with bounded loads: the highest score of those that have not too much in flight (Thaler and
    Ravishankar 1998, weighted as by Schindelhauer and Schomaker 2005; Mirrokni, Thorup and Zadimoghaddam 2016).

    A candidate that comes or goes moves no request between the others.
    """
    total = sum(each.in_flight for each in level) + 1
    weights = sum(each.weight for each in level)
    ranked = sorted(level, key=lambda each: score(each, hint), reverse=True)
    return next(each for each in ranked if each.in_flight < ceil(MAX_OVERLOAD * total * each.weight / weights))


def score(candidate: Balanced, hint: bytes) -> float:
    """How much the hint is drawn to the candidate."""
    digest = blake2b(hint, digest_size=8, key=candidate.identity[:64]).digest()
    share = (int.from_bytes(digest, "big") + 1) / (2**64 + 1)
    return -candidate.weight / log(share) if share < 1 else inf


def identity(*parts: bytes) -> bytes:
    """The identity of whoever is told by these."""
    digest = blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(4, "big") + part)
    return digest.digest()
