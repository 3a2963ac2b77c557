"""The bridge between coroutines, which we write, and Deferreds, which Twisted and our interfaces speak."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

P = ParamSpec("P")
T = TypeVar("T")


def deferred(method: Callable[P, Coroutine[Deferred[Any], Any, T]]) -> Callable[P, Deferred[T]]:
    """Make an C{async def} answer with a L{Deferred}, as our interfaces promise."""

    @wraps(method)
    def started(*args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        return Deferred.fromCoroutine(method(*args, **kwargs))

    return started


async def within(seconds: float, clock: IReactorTime, waiting: Deferred[T], error: Exception) -> T:
    """Wait for C{waiting} at most C{seconds}; then cancel it and raise C{error}.

    C{0} seconds means no limit. A Deferred that was cancelled by us fails with C{error} whatever its canceller
    made of it (an Agent, for one, says C{ResponseNeverReceived}).
    """
    if not seconds or waiting.called:
        return await waiting
    late = False

    def end() -> None:
        nonlocal late
        late = True
        waiting.cancel()

    timer = clock.callLater(seconds, end)
    try:
        return await waiting
    except Exception as e:
        if late:
            raise error from e
        raise
    finally:
        if timer.active():
            timer.cancel()


def as_deferred(value: Awaitable[T]) -> Deferred[T]:
    """Start waiting for C{value}, be it a Deferred or a coroutine that a library user wrote."""

    async def wait() -> T:
        return await value

    return value if isinstance(value, Deferred) else Deferred.fromCoroutine(wait())


class Pause:
    """Lets time pass, unless somebody ends that."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._passing: Deferred[None] | None = None

    async def wait(self, seconds: float) -> None:
        """Come back after so many seconds, or when L{end} is called. For one at a time."""
        self._passing = deferLater(self._clock, seconds)
        try:
            await self._passing
        except CancelledError:
            pass
        self._passing = None

    def end(self) -> None:
        """Whoever waits goes on at once."""
        if self._passing is not None:
            self._passing.cancel()


class FairLock:
    """Lets one at a time through, in the order in which they came, however many wait.

    C{DeferredLock} calls the next waiter inside the release of the one before: some ninety whose work ends at once
    overrun Python's stack, the error is swallowed and the lock stays taken. Here a release that happens inside a
    hand-over is only noted, and the hand-over that is under way goes on with it: the stack stays flat.
    """

    def __init__(self) -> None:
        self._waiting: dict[Deferred[None], None] = {}  # the first to come first
        self._held = self._handing_over = False

    @property
    def locked(self) -> bool:
        return self._held

    def acquire(self) -> Deferred[None]:
        """Fire when it is the caller's. Cancelled, it leaves its place to the next."""
        turn: Deferred[None] = Deferred(self._leave)
        if self._held or self._waiting:
            self._waiting[turn] = None
        else:
            self._held = True
            turn.callback(None)
        return turn

    def _leave(self, turn: Deferred[None]) -> None:
        self._waiting.pop(turn, None)

    def release(self) -> None:
        self._held = False
        if self._handing_over:
            return
        self._handing_over = True
        try:
            while self._waiting and not self._held:
                turn = next(iter(self._waiting))
                del self._waiting[turn]
                self._held = True
                turn.callback(None)
        finally:
            self._handing_over = False

    @asynccontextmanager
    async def within(self, seconds: float, clock: IReactorTime, error: Exception) -> AsyncIterator[None]:
        """Hold it for a block of code; C{error} where it was not free in time (C{0} seconds: no limit)."""
        await within(seconds, clock, self.acquire(), error)
        try:
            yield
        finally:
            self.release()


__all__ = ["CancelledError", "FairLock", "as_deferred", "deferred", "within"]
