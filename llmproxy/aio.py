"""The bridge between coroutines, which we write, and Deferreds, which Twisted and our interfaces speak."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime

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


def soon(value: Awaitable[T]) -> Deferred[T]:
    """Start waiting for C{value}, be it a Deferred or a coroutine that a library user wrote."""

    async def wait() -> T:
        return await value

    return value if isinstance(value, Deferred) else Deferred.fromCoroutine(wait())


__all__ = ["CancelledError", "deferred", "soon", "within"]
