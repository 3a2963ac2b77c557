"""Rates and leases of this process, counted in its memory."""

from __future__ import annotations

from llmproxy.limits.window import Window
from llmproxy.model import Claim

LEASE_RETRY_SECONDS = 1.0  # seconds after which it is worth asking again where nobody knows when something will be free


MAX_WINDOWS_BEFORE_SWEEP = 1024  # windows, beyond which those in which nothing is left are forgotten


class LocalCounters:
    """Rate windows and leases by key.

    @ivar windows: Those in which there may be something, made by L{window}.
    @ivar leases: How many are held.
    """

    def __init__(self) -> None:
        self._many = MAX_WINDOWS_BEFORE_SWEEP
        self.windows: dict[str, Window] = {}
        self.leases: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.windows) + len(self.leases)

    def remaining(self, claim: Claim, now: float) -> int:
        """How much of the claim's limit is left."""
        if claim.kind == "lease":
            return claim.limit - self.leases.get(claim.key, 0)
        window = self.windows.get(claim.key)
        return claim.limit if window is None else claim.limit - window.usage(now)

    def wait(self, claim: Claim, now: float) -> float:
        """Seconds until a claim that does not fit may fit."""
        window = self.windows.get(claim.key)
        return (
            LEASE_RETRY_SECONDS
            if claim.kind == "lease" or window is None
            else window.wait(amount_within_limit(claim), claim.limit, now)
        )

    def reset(self, claim: Claim, now: float) -> float:
        """Seconds until nothing of a rate is used."""
        window = self.windows.get(claim.key)
        return 0.0 if window is None else window.reset(now)

    def lease(self, key: str) -> None:
        """One more at once."""
        self.leases[key] = self.leases.get(key, 0) + 1

    def take(self, key: str, amount: int, now: float) -> int:
        """Take so much of a rate, which is L{amount_within_limit}; gives the slot, by which L{correct} finds it."""
        return (self.windows.get(key) or self.window(key, now)).add(amount, now)

    def window(self, key: str, now: float) -> Window:
        """A new one, for a rate that has none."""
        if len(self.windows) >= self._many:
            self._sweep(now)
        window = self.windows[key] = Window()
        return window

    def correct(self, claim: Claim, slot: int, amount: int) -> None:
        """The request is over, and took so much."""
        key = claim.key
        if claim.kind == "lease":
            held = self.leases.get(key, 0) - 1
            if held > 0:
                self.leases[key] = held
            else:
                self.leases.pop(key, None)
        elif (more := amount - amount_within_limit(claim)) and (window := self.windows.get(key)) is not None:
            window.correct(slot, more)

    def _sweep(self, now: float) -> None:
        """Forget windows in which nothing is left; not again before there are twice as many as remain."""
        for key in [key for key, window in self.windows.items() if not window.usage(now)]:
            del self.windows[key]
        self._many = max(MAX_WINDOWS_BEFORE_SWEEP, 2 * len(self.windows))


def amount_within_limit(claim: Claim) -> int:
    """What a claim takes of a rate: a request that alone may be more than all of it waits for an empty window."""
    return claim.amount if claim.amount < claim.limit else claim.limit


def least_required(claim: Claim) -> int:
    """What must be left for it: a budget of which nothing is left refuses also who claims nothing of it."""
    if claim.kind == "rate":
        return amount_within_limit(claim)
    return claim.amount if claim.amount > 0 or claim.kind != "budget" else 1
