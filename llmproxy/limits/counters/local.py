"""Rates and leases of this process, counted in its memory."""

from __future__ import annotations

from collections.abc import Callable

from llmproxy.limits.window import Window
from llmproxy.model import Claim

LEASE_RETRY_SECONDS = 1.0  # seconds after which it is worth asking again where nobody knows when something will be free


MAX_COUNTERS_BEFORE_SWEEP = 1024  # of one kind, beyond which those in which nothing is left are forgotten


class LeaseCounter:
    """Counts how many are C{held} at once."""

    __slots__ = ("held",)

    def __init__(self) -> None:
        self.held = 0


class LocalCounters:
    """Rate windows and leases by key.

    @ivar windows: Those in which there may be something, made by L{window}.
    @ivar leases: Those of which something may be held, made by L{lease}.
    """

    def __init__(self, forgotten: Callable[[], object] = bool) -> None:
        """
        @param forgotten: Called when some of them are known no more, as there is nothing in them.
        """
        self._forgotten = forgotten
        self._many_windows = self._many_leases = MAX_COUNTERS_BEFORE_SWEEP
        self.windows: dict[str, Window] = {}
        self.leases: dict[str, LeaseCounter] = {}

    def __len__(self) -> int:
        return len(self.windows) + len(self.leases)

    def remaining(self, claim: Claim, now: float) -> int:
        """How much of the claim's limit is left."""
        if claim.kind == "lease":
            lease = self.leases.get(claim.key)
            return claim.limit if lease is None else claim.limit - lease.held
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

    def lease(self, key: str) -> LeaseCounter:
        """Of a lease."""
        known = self.leases.get(key)
        if known is None:
            if len(self.leases) >= self._many_leases:
                self._sweep_leases()
            known = self.leases[key] = LeaseCounter()
        return known

    def take(self, key: str, amount: int, now: float) -> int:
        """Take so much of a rate, which is L{amount_within_limit}; gives the slot, by which L{correct} finds it."""
        return self.window(key, now).add(amount, now)

    def window(self, key: str, now: float) -> Window:
        """Of a rate."""
        known = self.windows.get(key)
        if known is None:
            if len(self.windows) >= self._many_windows:
                self._sweep_windows(now)
            known = self.windows[key] = Window()
        return known

    def correct(self, claim: Claim, slot: int, amount: int) -> None:
        """The request is over, and took so much."""
        key = claim.key
        if claim.kind == "lease":
            self.lease(key).held -= 1
        elif (more := amount - amount_within_limit(claim)) and (window := self.windows.get(key)) is not None:
            window.correct(slot, more)

    def _sweep_windows(self, now: float) -> None:
        """Forget those in which nothing is left; not again before there are twice as many as remain."""
        self.windows = {key: window for key, window in self.windows.items() if window.usage(now)}
        self._many_windows = max(MAX_COUNTERS_BEFORE_SWEEP, 2 * len(self.windows))
        self._forgotten()

    def _sweep_leases(self) -> None:
        self.leases = {key: lease for key, lease in self.leases.items() if lease.held}
        self._many_leases = max(MAX_COUNTERS_BEFORE_SWEEP, 2 * len(self.leases))
        self._forgotten()


def amount_within_limit(claim: Claim) -> int:
    """What a claim takes of a rate: a request that alone may be more than all of it waits for an empty window."""
    return claim.amount if claim.amount < claim.limit else claim.limit


def least_required(claim: Claim) -> int:
    """What must be left for it: a budget of which nothing is left refuses also who claims nothing of it."""
    if claim.kind == "rate":
        return amount_within_limit(claim)
    return claim.amount if claim.amount > 0 or claim.kind != "budget" else 1
