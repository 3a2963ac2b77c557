"""Threads for each kind of the store's work, with a queue of their own, so that no kind waits for another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import Deferred, DeferredList, fail

from llmproxy.base.own_threads import OwnThreads, StillBusy
from llmproxy.errors import StoreUnavailable

P = ParamSpec("P")
T = TypeVar("T")

LIST_THREADS = 2  # threads for what may take long: lists, reports, exports
MAX_EXPORTS = 2  # connections that are held while an export is sent


class StoreThreads(OwnThreads):
    """Threads that work while the store is open; what they cannot take fails with L{StoreUnavailable}."""

    _open = False

    def start(self) -> None:
        """Take work from now on."""
        self._open = True

    def stop(self) -> Deferred[None]:
        """Take no more work; fire when all that was taken is done and the threads have ended."""
        self._open = False
        return super().stop()

    def call(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        return super().call(work, *args, **kwargs) if self._open else fail(StoreUnavailable())

    def _refused(self, error: OSError) -> Deferred[Any]:
        busy = isinstance(error, StillBusy)
        return fail(StoreUnavailable() if busy else StoreUnavailable(f"The store cannot be asked: {error.strerror}."))


class ThreadPools:
    """One L{StoreThreads} for each kind of work.

    @ivar lookups: What a request of a known token waits for.
    @ivar unknown_tokens: Tokens that this process has never seen. One thread: many are looked up with one statement.
    @ivar uses: What requests write: uses, spending, the ledger. One thread for SQLite, which has one writer at a time.
    @ivar management: Changes that operators make; they wait for no request's.
    @ivar lists: What operators read.
    @ivar changes: What other processes have changed: must be heard of however many wait for the rest.
    @ivar health: Whether the store can be written.
    @ivar doing: What cannot be done where one of them fails, as the beginning of a sentence.
    @ivar connections: How many are in use at most.
    """

    def __init__(self, reactor: Any, threads: int, waiting: int, *, one_writer: bool) -> None:
        """
        @param threads: For lookups; C{waiting}: how many of each kind wait at most, beyond those at work.
        """
        writing = 1 if one_writer else min(2, threads)
        self.lookups = StoreThreads(reactor, "store lookups", size=threads, waiting=waiting)
        self.unknown_tokens = StoreThreads(reactor, "store unknown tokens", size=1, waiting=4)
        self.uses = StoreThreads(reactor, "store uses", size=writing, waiting=waiting)
        self.management = StoreThreads(reactor, "store management", size=1, waiting=waiting)
        self.lists = StoreThreads(reactor, "store lists", size=LIST_THREADS, waiting=waiting)
        self.changes = StoreThreads(reactor, "store changes", size=1, waiting=1)
        self.health = StoreThreads(reactor, "store health", size=1, waiting=1)
        self.doing = {
            self.lookups: "The token could not be checked",
            self.unknown_tokens: "The token could not be checked",
            self.uses: "What was used could not be stored",
            self.management: "The change could not be stored",
            self.lists: "What was asked for could not be read",
            self.changes: "Changes of others could not be read",
            self.health: "Nothing can be stored",
        }
        self.connections = threads + writing + LIST_THREADS + MAX_EXPORTS + 4

    @property
    def all(self) -> tuple[StoreThreads, ...]:
        return (
            *(self.lookups, self.unknown_tokens, self.uses, self.management, self.lists),
            *(self.changes, self.health),
        )

    def start(self) -> None:
        for threads in self.all:
            threads.start()

    def stop(self) -> Deferred[None]:
        """Take no more work; fire when all that was taken is done."""
        return DeferredList([threads.stop() for threads in self.all]).addCallback(lambda _: None)
