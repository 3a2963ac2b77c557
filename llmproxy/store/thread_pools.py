"""The store's work in lanes: each has threads and a queue of its own, so that none waits for what another is given."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, DeferredList

from llmproxy.store.threads import Threads

LIST_THREADS = 2  # threads for what may take long: lists, reports, exports
MAX_EXPORTS = 2  # connections that are held while an export is sent


class ThreadPools:
    """One L{Threads} for each kind of work.

    @ivar look_ups: What a request of a known token waits for.
    @ivar guesses: Tokens that this process has never seen. One thread: many are looked up with one statement.
    @ivar uses: What requests write: uses, spending, the ledger. One thread for SQLite, which has one writer at a time.
    @ivar management: Changes that operators make; they wait for no request's.
    @ivar lists: What operators read.
    @ivar changes: What other processes have changed: must be heard of however many wait for the rest.
    @ivar health: Whether the store can be written.
    @ivar doing: What cannot be done where a lane fails, as the beginning of a sentence.
    @ivar connections: How many are in use at most.
    """

    def __init__(self, reactor: Any, threads: int, waiting: int, *, one_writer: bool) -> None:
        """
        @param threads: For look-ups; C{waiting}: how many of each kind wait at most, beyond those at work.
        """
        writing = 1 if one_writer else min(2, threads)
        self.look_ups = Threads(reactor, "store look-ups", threads, waiting)
        self.guesses = Threads(reactor, "store unknown tokens", 1, 4)
        self.uses = Threads(reactor, "store uses", writing, waiting)
        self.management = Threads(reactor, "store management", 1, waiting)
        self.lists = Threads(reactor, "store lists", LIST_THREADS, waiting)
        self.changes = Threads(reactor, "store changes", 1, 1)
        self.health = Threads(reactor, "store health", 1, 1)
        self.doing = {
            self.look_ups: "The token could not be checked",
            self.guesses: "The token could not be checked",
            self.uses: "What was used could not be stored",
            self.management: "The change could not be stored",
            self.lists: "What was asked for could not be read",
            self.changes: "Changes of others could not be read",
            self.health: "Nothing can be stored",
        }
        self.connections = threads + writing + LIST_THREADS + MAX_EXPORTS + 4

    @property
    def all(self) -> tuple[Threads, ...]:
        return (
            *(self.look_ups, self.guesses, self.uses, self.management, self.lists),
            *(self.changes, self.health),
        )

    def start(self) -> None:
        for threads in self.all:
            threads.start()

    def stop(self) -> Deferred[None]:
        """Take no more work; fire when all that was taken is done."""
        return DeferredList([threads.stop() for threads in self.all]).addCallback(lambda _: None)
