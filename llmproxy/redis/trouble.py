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

    def __init__(self, where: str, clock: IReactorTime) -> None:
        """
        @param where: The server, without a secret.
        """
        self.errors = 0
        self._where = where
        self._clock = clock
        self._next = float("-inf")
        self._warned = False

    def tell(self, reason: str) -> None:
        """Something went wrong."""
        self.errors += 1
        now = self._clock.seconds()
        if now < self._next:
            return
        self._next, self._warned = now + self.interval, True
        self.log.warn(
            "Redis at {where} cannot be used: {reason}. Going on without it. {errors} errors so far.",
            where=self._where,
            reason=reason.rstrip("."),
            errors=self.errors,
        )

    def over(self) -> None:
        """It works again."""
        if self._warned:
            self._warned = False
            self.log.info("Redis at {where} can be used again.", where=self._where)
