"""What Redis, the store and this process say of a request's claims, as one verdict with one ticket. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from llmproxy.model import Claim, Verdict


class RedisTicket(NamedTuple):
    """What was reserved for a request, by the places of its claims.

    @ivar local: The ticket of those that this process counts, budgets first of all; C{local_places}, which they are.
    @ivar holder: Who holds what is in Redis; C{""} where nothing is.
    @ivar claims: Those that are there, and C{places}, which they are.
    """

    local: Any = None
    local_places: tuple[int, ...] = ()
    holder: str = ""
    slot: int = 0
    claims: tuple[Claim, ...] = ()
    places: tuple[int, ...] = ()


class RedisVerdict(NamedTuple):
    """What Redis said, by the order of the claims."""

    refused: int | None
    wait: float | None
    slot: int
    used: list[int]
    resets: list[float]
    generations: list[str]


def with_ticket(verdict: Verdict | None, places: tuple[int, ...]) -> Verdict | None:
    """A verdict on budgets alone, with a ticket of ours."""
    if verdict is None or verdict.ticket is None:
        return verdict
    return verdict._replace(ticket=RedisTicket(verdict.ticket, places))


def spread(claims: Sequence[Claim], verdict: Verdict, places: tuple[int, ...]) -> Verdict:
    """A verdict on those in these places, as one on all of them; the others are not held."""
    remaining, resets = [claim.limit for claim in claims], [0.0] * len(claims)
    for place, left, reset in zip(places, verdict.remaining, verdict.resets, strict=True):
        remaining[place], resets[place] = left, reset
    refused = None if verdict.refused is None else places[verdict.refused]
    ticket = RedisTicket(verdict.ticket, places) if refused is None else None
    return Verdict(refused, verdict.wait, remaining=tuple(remaining), resets=tuple(resets), ticket=ticket)


def combine(
    claims: Sequence[Claim],
    held: Verdict,
    budgets: tuple[int, ...],
    answer: RedisVerdict,
    shared: tuple[int, ...],
    ticket: RedisTicket | None,
) -> Verdict:
    """What the store and Redis say, as one; the first that refuses is named."""
    remaining, resets = [0] * len(claims), [0.0] * len(claims)
    for place, left in zip(budgets, held.remaining, strict=True):
        remaining[place] = left
    for place, used, reset in zip(shared, answer.used, answer.resets, strict=True):
        remaining[place], resets[place] = max(claims[place].limit - used, 0), reset
    refusals = []
    if held.refused is not None:
        refusals.append((budgets[held.refused], held.wait))
    if answer.refused is not None:
        refusals.append((shared[answer.refused], answer.wait))
    refused, wait = min(refusals, key=lambda refusal: refusal[0], default=(None, None))
    return Verdict(refused, wait, False, tuple(remaining), tuple(resets), ticket)
