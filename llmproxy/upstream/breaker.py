"""A circuit breaker: stops asking a provider that keeps failing, and finds out when it works again."""

from __future__ import annotations

from typing import Literal

State = Literal["closed", "open", "half-open"]
BUCKETS = 10  # in which a window is counted


class ErrorRatio:
    """Which share of the verdicts within a window were failures."""

    def __init__(self, limit: float, window: float, least: int) -> None:
        """
        @param window: Seconds; C{least}: verdicts that there must be for the share to say something.
        """
        self._limit = limit
        self._width = window / BUCKETS
        self._least = least
        self._at = 0
        self._counts = [[0, 0] for _ in range(BUCKETS)]

    def add(self, now: float, *, failed: bool) -> bool:
        """Count a verdict; whether the share has reached the limit."""
        at = int(now / self._width)
        for each in range(max(self._at + 1, at - BUCKETS + 1), at + 1):
            self._counts[each % BUCKETS] = [0, 0]
        self._at = max(self._at, at)
        self._counts[self._at % BUCKETS][failed] += 1
        failures = sum(count[1] for count in self._counts)
        total = failures + sum(count[0] for count in self._counts)
        return total >= self._least and failures >= self._limit * total

    def clear(self) -> None:
        """Begin anew."""
        self._counts = [[0, 0] for _ in range(BUCKETS)]


class Breaker:
    """Opens after C{failures} in a row, or when too many failed lately; after C{cooldown} seconds lets one request
    through to see.

    Whoever was allowed reports exactly one verdict: L{succeeded}, L{failed}, or L{released} where it learnt nothing of
    the provider. A verdict that comes with its ticket counts only if nothing has changed since the ticket was given, so
    that a request from before the breaker opened cannot be taken for the probe.

    @ivar state: C{closed}, C{open} (also when the next request will be the probe) or C{half-open} (the probe is out).
    @ivar ticket: That of requests that are made in this state.
    @ivar is_steady: Whether one more success changes nothing.
    """

    def __init__(self, failures: int, cooldown: float, ratio: ErrorRatio | None = None) -> None:
        """
        @param failures: How many in a row open it; C{0} means never.
        @param cooldown: Seconds.
        @param ratio: Opens it too, where there is one.
        """
        self._ratio = ratio
        self._limit = failures
        self._cooldown = cooldown
        self._failures = 0
        self._opened = 0.0
        self.ticket = 1
        self._probing = False
        self._held = 0.0
        self.state: State = "closed"
        self.is_steady = ratio is None

    def allow(self, now: float) -> int:
        """The ticket of a request that may be made now, or C{0} where none may."""
        if self.state == "closed":
            return self.ticket
        if not self.ready(now):
            return 0
        self._probing = True
        return self._become("half-open")

    def ready(self, now: float) -> bool:
        """Whether L{allow} would let a request through."""
        return self.state == "closed" or (not self._probing and self.retry_after(now) <= 0.0)

    def retry_after(self, now: float) -> float:
        """Seconds until it is worth asking again; C{0.0} where it is now."""
        if self.state == "closed":
            return 0.0
        if self._held:
            return self._held
        self._opened = min(self._opened, now)  # a clock that was set back must not hold requests back for longer
        return max(self._opened + self._cooldown - now, 0.0)

    def succeeded(self, now: float, ticket: int = 0) -> None:
        """The provider works."""
        if self.is_steady or self._late(ticket):
            return
        self._failures = 0
        self.is_steady = self._ratio is None and self.state == "closed"
        if self.state == "half-open":
            self._probing = False
            if self._ratio is not None:
                self._ratio.clear()
            self._become("closed")
        elif self._ratio is not None and self._ratio.add(now, failed=False):
            self._open(now)

    def failed(self, now: float, ticket: int = 0) -> None:
        """The provider does not work."""
        if self._late(ticket):
            return
        self._failures += 1
        self.is_steady = False
        too_many = self._ratio is not None and self._ratio.add(now, failed=True)
        if self.state == "half-open" or 0 < self._limit <= self._failures or too_many:
            self._open(now)

    def released(self, ticket: int = 0) -> None:
        """Nothing was learnt: the client left, or the fault was ours. The next one is the probe."""
        if not self._late(ticket) and self.state == "half-open":
            self._probing = False
            self._become("open")

    def hold(self, retry_after: float) -> None:
        """Be open until L{restore}, whatever requests bring: somebody else has found that the provider does not work.

        @param retry_after: Seconds after which it is worth asking again, as far as is known; more than 0.
        """
        self._held, self._probing = retry_after, False
        self._become("open")

    def restore(self) -> None:
        """Be closed: somebody else has found that the provider works."""
        self._held, self._probing, self._failures = 0.0, False, 0
        if self._ratio is not None:
            self._ratio.clear()
        self._become("closed")

    def retire(self) -> None:
        """Another has taken its place: no request is made by it any more."""
        self._become("open")

    def _open(self, now: float) -> None:
        self._probing = False
        self._opened = now
        self._become("open")

    def _late(self, ticket: int) -> bool:
        """While it is open nobody is out who could know anything new."""
        return self.state == "open" or (ticket != 0 and ticket != self.ticket)

    def _become(self, state: State) -> int:
        self.state = state
        self.is_steady = state == "closed" and self._ratio is None and not self._failures
        self.ticket += 1
        return self.ticket
