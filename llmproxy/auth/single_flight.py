"""Many look-ups of the same thing at once are one (Go: singleflight)."""

from __future__ import annotations

from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from llmproxy.model import Grant

E = TypeVar("E", bound=Exception)


class SingleFlight:
    """One look-up in flight, and everybody who waits for its result.

    One of them giving up leaves the others waiting; when the last one does, the look-up is cancelled.
    """

    def __init__(self) -> None:
        self._waiting: list[Deferred[Grant]] = []
        self._look_up: Deferred[None] | None = None

    def start(self, look_up: Deferred[None]) -> None:
        self._look_up = look_up

    def wait(self) -> Deferred[Grant]:
        waiter: Deferred[Grant] = Deferred(self._leave)
        self._waiting.append(waiter)
        return waiter

    def _leave(self, waiter: Deferred[Grant]) -> None:
        self._waiting.remove(waiter)
        if not self._waiting and self._look_up is not None:
            self._look_up.cancel()

    def succeed(self, grant: Grant) -> None:
        self._look_up = None
        while self._waiting:
            self._waiting.pop(0).callback(grant)

    def fail(self, error: Exception) -> None:
        self._look_up = None
        while self._waiting:
            self._waiting.pop(0).errback(Failure(again(error)))


def again(error: E) -> E:
    """The same error without its traceback, to be raised once more; whatever its class wants to be made with."""
    fresh = type(error).__new__(type(error), *error.args)
    fresh.__dict__.update(error.__dict__)
    return fresh
