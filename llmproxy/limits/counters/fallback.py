"""What a process allows on its own while those who count for all cannot be asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llmproxy.limits.counted import CountedLimits
from llmproxy.limits.counters.local import LEASE_RETRY_SECONDS
from llmproxy.limits.counters.memory import MemoryCounters
from llmproxy.limits.counters.remote_limits import RemoteTicket
from llmproxy.model import Claim, Verdict


class LocalFallback:
    """Decides alone, each claim by its C{on_loss}, while Redis does not answer.

    @ivar processes: How many there were when that was last known.
    """

    def __init__(self, local: MemoryCounters, own_use: Callable[[str], int]) -> None:
        """
        @param own_use: How much of a limit this process has used or holds already, where all are counted.
        """
        self.processes = 1
        self._local = local
        self._own_use = own_use

    def decide(self, limits: CountedLimits, amounts: Sequence[int]) -> Verdict | None:
        """A verdict; C{None} where the store must be asked for it with L{reserve}."""
        claims = limits.claimed(amounts)
        place = first_closed(claims)
        if place is not None:
            return Verdict(place, LEASE_RETRY_SECONDS, lost=True)
        places, mine = self._shares(limits, claims)
        verdict = self._local.decide(mine, amounts) if places else Verdict()
        return None if verdict is None else _spread(claims, verdict, places)

    async def reserve(self, limits: CountedLimits, amounts: Sequence[int]) -> Verdict:
        """The same, whatever it takes. L{LimitsUnavailable} where the store does not answer either."""
        verdict = self.decide(limits, amounts)
        if verdict is not None:
            return verdict
        claims = limits.claimed(amounts)
        places, mine = self._shares(limits, claims)
        return _spread(claims, await self._local.reserve_of(mine, amounts), places)

    def _shares(self, limits: CountedLimits, claims: Sequence[Claim]) -> tuple[tuple[int, ...], CountedLimits]:
        places, mine = local_shares(claims, self.processes, self._own_use)
        return places, CountedLimits(mine, [limits.units[place] for place in places])


def first_closed(claims: Sequence[Claim]) -> int | None:
    """The place of the first claim that nobody may allow alone."""
    return next((place for place, claim in enumerate(claims) if claim.on_loss == "closed"), None)


def local_shares(
    claims: Sequence[Claim], processes: int, recent: Callable[[str], int]
) -> tuple[tuple[int, ...], list[Claim]]:
    """The places of the claims that are held all the same, and these with this process's part of each limit.

    A budget is in the store, which shares it out by itself. What is C{open} is not held.

    @param processes: How many there were when that was last known.
    @param recent: How much of its part this process has used or holds already, where all were counted.
    """
    held = [(place, claim) for place, claim in enumerate(claims) if claim.on_loss != "open"]
    return tuple([place for place, _ in held]), [
        claim if claim.kind == "budget" else claim._replace(limit=_part(claim, processes) - recent(claim.key))
        for _, claim in held
    ]


def _part(claim: Claim, processes: int) -> int:
    return max(claim.limit // processes, 1)


def _spread(claims: Sequence[Claim], verdict: Verdict, places: tuple[int, ...]) -> Verdict:
    """A verdict on those in these places, as one on all of them; the others are not held."""
    remaining, resets = [claim.limit for claim in claims], [0.0] * len(claims)
    for place, left, reset in zip(places, verdict.remaining, verdict.resets, strict=True):
        remaining[place], resets[place] = left, reset
    refused = None if verdict.refused is None else places[verdict.refused]
    ticket = RemoteTicket(verdict.ticket) if refused is None else None
    return Verdict(refused, verdict.wait, remaining=tuple(remaining), resets=tuple(resets), ticket=ticket)
