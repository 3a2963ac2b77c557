"""What a process allows on its own while those who count for all cannot be asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llmproxy.model import Claim


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
