"""Collapsed requests: one call to a provider for a key, and all who wait for what comes of it (RFC 9111, section 4)."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from copy import copy
from typing import Any, Generic, Protocol, TypeVar

from twisted.internet.defer import CancelledError, Deferred

from llmproxy.wire.buffers import Buffers

MAX_WAITERS = 16_384  # requests that wait for the head of one response; a further one makes a call of its own

W = TypeVar("W")
R = TypeVar("R")


class SoleCall(Protocol):
    """A call that nobody has joined, and that nobody can join as it is.

    @ivar storable: Whether what comes of it may still be stored.
    """

    storable: bool

    def become_joinable(self) -> object:
        """Somebody is about to join it: register it as a L{CollapsedRequest}, or leave it to those who ask for the
        same to make one."""


class InFlight(Generic[W, R]):
    """The calls that others may join, by key; and how much is held of responses that may be stored.

    @ivar buffered: Bytes of responses that are held because they may be stored once they are complete.
    """

    def __init__(
        self, max_object_bytes: int, max_buffered_bytes: int, buffers: Buffers, *, max_waiters: int = MAX_WAITERS
    ) -> None:
        """
        @param max_object_bytes: Of one response; C{max_buffered_bytes}: of all together.
        @param buffers: Where the same is counted with everything else that is held.
        @param max_waiters: Requests that may wait for the head of one response.
        """
        self.buffered = 0
        self.max_waiters = max_waiters
        self._calls: dict[str, CollapsedRequest[W, R]] = {}
        self._sole: dict[str, SoleCall] = {}
        self._max_object_bytes = max_object_bytes
        self._max_buffered_bytes = max_buffered_bytes
        self._buffers = buffers

    def __len__(self) -> int:
        return len(self._calls) + len(self._sole)

    def __contains__(self, key: str) -> bool:
        return key in self._calls or key in self._sole

    def get(self, key: str) -> CollapsedRequest[W, R] | None:
        """The call that a request with this key may join, and is about to."""
        sole = self._sole.pop(key, None)
        if sole is not None:
            sole.become_joinable()
        return self._calls.get(key)

    def enter(self, key: str, call: SoleCall) -> None:
        """Others may join it, once they ask for it. There must be no other with this key."""
        self._sole[key] = call

    def leave(self, key: str, call: SoleCall) -> None:
        """It is over, or goes on as any other."""
        if self._sole.get(key) is call:
            del self._sole[key]

    def register(self, call: CollapsedRequest[W, R]) -> None:
        """Others may join it, unless there is one already that they may join."""
        self._calls.setdefault(call.key, call)

    def unregister(self, call: CollapsedRequest[W, R]) -> None:
        """Nobody may join it any more."""
        if self._calls.get(call.key) is call:
            del self._calls[call.key]

    def forbid_storing(self, prefix: str) -> None:
        """Store nothing of what is in flight to keys that begin so."""
        for key in [key for key in (*self._calls, *self._sole) if key.startswith(prefix)]:
            self.forbid_storing_of(key)

    def forbid_storing_of(self, key: str) -> None:
        """Store nothing of what is in flight to this key."""
        sole, call = self._sole.pop(key, None), self._calls.get(key)
        if sole is not None:
            sole.storable = False
        if call is not None:
            call.forbid_storing()

    def may_hold(self, count: int) -> bool:
        """Whether all of a response of so many bytes may be held."""
        within = count <= self._max_object_bytes and self.buffered + count <= self._max_buffered_bytes
        return within and not self._buffers.full

    def hold(self, count: int, held: int) -> bool:
        """So many further bytes are held, C{held} in all of one response; whether they may be."""
        self.buffered += count
        self._buffers.hold(count)
        within = held <= self._max_object_bytes and self.buffered <= self._max_buffered_bytes
        return within and not self._buffers.full


class CollapsedRequest(Generic[W, R]):
    """The call that C{leader} makes. Others may join it until its response turns out to be none that may be shared.

    Whoever leaves, leaves alone: the call goes on for the others. When the last one leaves, it is cancelled.

    @ivar leader: By whom it is made; of him and of those who wait nothing is known here but that they are.
    @ivar storable: Whether what comes of it may still be stored.
    """

    _respond: Callable[[W], R | None] | None = None
    _calling: Deferred[None]

    def __init__(self, key: str, leader: W, in_flight: InFlight[W, R]) -> None:
        self.key = key
        self.leader = leader
        self.storable = True
        self._in_flight = in_flight
        self._waiting: list[tuple[Deferred[R | None], W]] = []
        self._ends: list[Deferred[None]] = []
        self._over = False
        self._held = 0

    async def lead(self, call: Coroutine[Any, Any, None]) -> R:
        """Make the call, and wait for what is to be served to the leader.

        @param call: Calls L{settle}, L{share} or L{fail} in the end.
        """
        waiting = self._wait(self.leader)
        self._calling = Deferred.fromCoroutine(call)
        try:
            result = await waiting
        except CancelledError:
            await self.wait_closed()  # whoever has joined goes on, and what that costs is this request's
            raise
        assert result is not None
        return result

    async def join(self, waiter: W) -> R | None:
        """What another request is served with; C{None} where it must make a call of its own."""
        if self._respond is not None:
            return self._respond(waiter)
        if len(self._waiting) >= self._in_flight.max_waiters:
            return None
        return await self._wait(waiter)

    async def wait_closed(self) -> None:
        """Come back when nothing more comes of it, whoever leaves meanwhile."""
        while not self._over:
            end: Deferred[None] = Deferred()
            self._ends.append(end)
            try:
                await end
            except CancelledError:
                self._ends.remove(end)

    def forbid_storing(self) -> None:
        """Whatever comes of it is not to be stored, and nobody joins any more."""
        self.storable = False
        self._in_flight.unregister(self)

    # What the call comes to

    def settle(self, respond: Callable[[W], R | None]) -> None:
        """It is over: all who wait get C{respond(waiter)}; one who gets C{None} makes a call of his own."""
        for waiting, waiter in self._closed():
            waiting.callback(respond(waiter))

    def share(self, respond: Callable[[W], R | None], begin: Callable[[], object]) -> None:
        """All who wait, and all who join from now on, get C{respond(waiter)}.

        @param begin: Called when those who wait have theirs, before they know.
        """
        self._respond = respond
        waiting, self._waiting = self._waiting, []
        results = [(each, respond(waiter)) for each, waiter in waiting]
        begin()
        for each, result in results:
            each.callback(result)

    def fail(self, error: Exception, *, for_all: bool) -> None:
        """It is over, and has failed.

        @param for_all: Whether those who have joined need not find out for themselves.
        """
        for waiting, waiter in self._closed():
            if waiter is self.leader:
                waiting.errback(error)
            elif for_all:
                waiting.errback(copy(error))
            else:
                waiting.callback(None)

    def complete(self) -> None:
        """Nothing more comes of it; it may be joined until it is L{close}d."""
        self._over = True
        ends, self._ends = self._ends, []
        for end in ends:
            end.callback(None)

    def close(self) -> None:
        """Nothing more comes of it, and nobody can join it."""
        self._closed()

    def hold(self, count: int) -> bool:
        """So many further bytes are held for it; whether they may be."""
        self._held += count
        return self._in_flight.hold(count, self._held)

    def release(self) -> None:
        """Nobody may join it any more, and nothing is held for it."""
        self._in_flight.unregister(self)
        self._in_flight.hold(-self._held, 0)
        self._held = 0

    def _closed(self) -> list[tuple[Deferred[R | None], W]]:
        """Those who still wait, now that it is over."""
        self.release()
        self.complete()
        self._respond = None  # which knows this: nothing is to be left to the collector
        waiting, self._waiting = self._waiting, []
        return waiting

    def _wait(self, waiter: W) -> Deferred[R | None]:
        waiting: Deferred[R | None] = Deferred(self._left)
        self._waiting.append((waiting, waiter))
        return waiting

    def _left(self, waiting: Deferred[R | None]) -> None:
        self._waiting = [one for one in self._waiting if one[0] is not waiting]
        if not self._waiting and self._respond is None and not self._over:
            self._calling.cancel()
