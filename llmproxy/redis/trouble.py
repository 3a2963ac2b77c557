"""Says that Redis is away, and that it is back, without filling the log."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger


class Trouble:
    """Warns once a minute at most, whatever goes wrong and however often.

    @ivar errors: How often something went wrong.
    """

    log = Logger()
    interval = 60.0

    def __init__(self, where: str, clock: IReactorTime, use: str = "") -> None:
        """
        @param where: The server, without a secret.
        @param use: What it is used for.
        """
        self.errors = 0
        self._where = where
        self._use = f" for {use}" if use else ""
        self._clock = clock
        self._next = float("-inf")
        self._warned = False

    def tell(self, reason: str) -> None:
        """Something went wrong."""
        self.errors += 1
        self.warn(reason)

    def warn(self, reason: str) -> None:
        """Say so, unless that was said just now."""
        now = self._clock.seconds()
        if now < self._next:
            return
        self._next, self._warned = now + self.interval, True
        self.log.warn(
            "Redis at {where} cannot be used{use}: {reason}. Going on without it. {errors} errors so far.",
            where=self._where,
            use=self._use,
            reason=reason.rstrip("."),
            errors=self.errors,
        )

    def over(self) -> None:
        """It works again."""
        if self._warned:
            self._warned = False
            self.log.info("Redis at {where} can be used{use} again.", where=self._where, use=self._use)
