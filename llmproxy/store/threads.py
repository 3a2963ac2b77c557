"""The store's own threads, where everything that blocks is done."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from threading import Thread
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from llmproxy.errors import StoreUnavailable

T = TypeVar("T")


class _Daemon(Thread):
    """A thread that hangs on a dead server must not keep the process from ending."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more, daemon=True)


class _Pool(ThreadPool):
    threadFactory = _Daemon


class Threads:
    """Runs blocking work in at most C{size} threads, with at most C{waiting} jobs queued behind them.

    @param reactor: Provides L{IReactorFromThreads}.
    """

    def __init__(self, reactor: Any, name: str, size: int, waiting: int) -> None:
        self._reactor = reactor
        self._name = name
        self.size = size
        self._pool: _Pool | None = None
        self._limit = size + waiting
        self._jobs = 0

    def start(self) -> None:
        self._pool = _Pool(minthreads=0, maxthreads=self.size, name=self._name)
        self._pool.start()

    def run(self, work: Callable[[], T]) -> Deferred[T]:
        """Fire with what C{work} returns; fail at once with L{StoreUnavailable} where the queue is full.

        A job that is cancelled before a thread took it up is not done. One that was taken up goes on unheard.
        """
        if self._pool is None or self._jobs >= self._limit:
            return fail(StoreUnavailable())
        abandoned = False

        def abandon(answer: Deferred[T]) -> None:
            nonlocal abandoned
            abandoned = True

        def job() -> T:
            if abandoned:
                raise CancelledError
            return work()

        answer: Deferred[T] = Deferred(abandon)
        done = partial(self._reactor.callFromThread, self._finished, answer)
        try:
            self._pool.callInThreadWithCallback(done, job)
        except (RuntimeError, MemoryError) as e:  # the system lets us have no thread
            return fail(StoreUnavailable(f"The store cannot be asked: {e}."))
        self._jobs += 1
        return answer

    def _finished(self, answer: Deferred[T], success: bool, result: Any) -> None:
        self._jobs -= 1
        if answer.called:
            return
        if isinstance(result, Failure):
            answer.errback(result)
        else:
            answer.callback(result)

    def stop(self) -> Deferred[None]:
        """Take no more work; fire when all that was taken is done and the threads have ended."""
        pool, self._pool = self._pool, None
        if pool is None:
            return succeed(None)
        stopped: Deferred[None] = Deferred()

        def join() -> None:
            pool.stop()
            self._reactor.callFromThread(stopped.callback, None)

        _Daemon(target=join, name=f"{self._name} stopping").start()
        return stopped
