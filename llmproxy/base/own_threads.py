"""Threads of one's own for what blocks: a disk that hangs holds up nobody else, and never the end of the process."""

from __future__ import annotations

import ctypes
import errno
import resource
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from threading import Thread
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

P = ParamSpec("P")
T = TypeVar("T")

STACK_BYTES = 1024 * 1024  # of a thread, where address space is scarce
M_ARENA_MAX = -8  # glibc, malloc.h


def spare_address_space() -> None:
    """Where C{ulimit -v} bounds it, let threads take little of it: glibc maps 64 MiB for each that allocates, and 8 MiB
    of stack, of which next to nothing is used. To be called before there are any."""
    if resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
        return
    threading.stack_size(STACK_BYTES)
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


class _Unjoined(Thread):
    """The interpreter does not wait for it when it ends."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more, daemon=True)


class _Pool(ThreadPool):
    threadFactory = _Unjoined


class StillBusy(OSError):
    """What was to be done before is not done yet, and enough waits behind it."""

    def __init__(self) -> None:
        super().__init__(errno.EBUSY, "The disk has not finished what it was given before")


class OwnThreads:
    """Calls what blocks in at most C{size} threads that nobody else uses, begun when they are needed.

    The reactor's own threads resolve the names of providers, and are waited for when the process ends: what hangs in
    one of them (a FIFO that nobody reads, a file server that does not answer) would hold up both.

    @ivar size: How many threads there are at most.
    """

    def __init__(self, reactor: Any, name: str, *, size: int = 1, waiting: int = 1000) -> None:
        """
        @param reactor: Provides C{IReactorFromThreads}.
        @param waiting: How many calls may wait for a thread.
        """
        self.size = size
        self._reactor = reactor
        self._name = name
        self._pool: _Pool | None = None
        self._limit = size + waiting
        self._jobs = 0

    def call(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """Fire with what C{work} returns; L{StillBusy} where too much waits, C{OSError} without a thread.

        A call that is cancelled before a thread took it up is not made; one that was taken up goes on unheard.
        """
        if self._jobs >= self._limit:
            return self._refused(StillBusy())
        abandoned = False

        def abandon(answer: Deferred[T]) -> None:
            nonlocal abandoned
            abandoned = True

        def job() -> T:
            if abandoned:
                raise CancelledError
            return work(*args, **kwargs)

        answer: Deferred[T] = Deferred(abandon)
        done = partial(self._reactor.callFromThread, self._finished, answer)
        try:
            self._started().callInThreadWithCallback(done, job)
        except (RuntimeError, MemoryError) as e:  # the system lets us have no thread
            return self._refused(OSError(errno.EAGAIN, str(e)))
        self._jobs += 1
        return answer

    def stop(self) -> Deferred[None]:
        """Fire when all that was taken is done and the threads have ended; a later call begins new ones."""
        pool, self._pool = self._pool, None
        if pool is None:
            return succeed(None)
        stopped: Deferred[None] = Deferred()

        def join() -> None:
            pool.stop()
            self._reactor.callFromThread(stopped.callback, None)

        _Unjoined(target=join, name=f"{self._name} stopping").start()
        return stopped

    def _started(self) -> _Pool:
        if self._pool is None:
            self._pool = _Pool(minthreads=0, maxthreads=self.size, name=self._name)
            self._pool.start()
        return self._pool

    def _refused(self, error: OSError) -> Deferred[Any]:
        return fail(error)

    def _finished(self, answer: Deferred[T], success: bool, result: Any) -> None:
        self._jobs -= 1
        if answer.called:
            return
        if isinstance(result, Failure):
            answer.errback(result)
        else:
            answer.callback(result)
