"""A circuit breaker: stops asking a provider that keeps failing, and finds out when it works again."""

from __future__ import annotations

from typing import Literal

State = Literal["closed", "open", "half-open"]


class Breaker:
    """Opens after C{failures} in a row; after C{cooldown} seconds lets one request through to see.

    Whoever was allowed reports exactly one verdict: L{succeeded}, L{failed}, or L{released} where it learnt nothing of
    the provider. A verdict that comes with its ticket counts only if nothing has changed since the ticket was given, so
    that a request from before the breaker opened cannot be taken for the probe.
    """

    def __init__(self, failures: int, cooldown: float) -> None:
        """
        @param failures: How many in a row open it; C{0} means never.
        @param cooldown: Seconds.
        """
        self._limit = failures
        self._cooldown = cooldown
        self._failures = 0
        self._opened = 0.0
        self._ticket = 1
        self._probing = False
        self._state: State = "closed"

    @property
    def state(self) -> State:
        """C{closed}, C{open} (also when the next request will be the probe) or C{half-open} (the probe is out)."""
        return self._state

    def allow(self, now: float) -> int:
        """The ticket of a request that may be made now, or C{0} where none may."""
        if self._state == "closed":
            return self._ticket
        if self.retry_after(now) > 0.0 or self._probing:
            return 0
        self._probing = True
        return self._become("half-open")

    def retry_after(self, now: float) -> float:
        """Seconds until it is worth asking again; C{0.0} where it is now."""
        if self._state == "closed":
            return 0.0
        self._opened = min(self._opened, now)  # a clock that was set back must not hold requests back for longer
        return max(self._opened + self._cooldown - now, 0.0)

    def succeeded(self, now: float, ticket: int = 0) -> None:
        """The provider works."""
        if self._late(ticket):
            return
        self._failures = 0
        if self._state == "half-open":
            self._probing = False
            self._become("closed")

    def failed(self, now: float, ticket: int = 0) -> None:
        """The provider does not work."""
        if self._late(ticket):
            return
        self._failures += 1
        if self._state == "half-open" or 0 < self._limit <= self._failures:
            self._probing = False
            self._opened = now
            self._become("open")

    def released(self, ticket: int = 0) -> None:
        """Nothing was learnt: the client left, or the fault was ours. The next one is the probe."""
        if not self._late(ticket) and self._state == "half-open":
            self._probing = False
            self._become("open")

    def _late(self, ticket: int) -> bool:
        """While it is open nobody is out who could know anything new."""
        return self._state == "open" or (ticket != 0 and ticket != self._ticket)

    def _become(self, state: State) -> int:
        self._state = state
        self._ticket += 1
        return self._ticket
