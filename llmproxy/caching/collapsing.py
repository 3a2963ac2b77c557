"""One call to a provider, and all who wait for what comes of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from twisted.internet.defer import CancelledError, Deferred

from llmproxy import errors
from llmproxy.caching.broadcast import Broadcast, Subscriber
from llmproxy.caching.draining import DiscardBody
from llmproxy.caching.replay import CachedResponse
from llmproxy.caching.rules import reuse, streams
from llmproxy.caching.rules.entry import Entry
from llmproxy.caching.rules.storing import NotStored, ResponseHead
from llmproxy.caching.rules.vary import selecting_fields
from llmproxy.http.masking import KeyFilter, Mask, content_coding, mask_plan
from llmproxy.wire.client.response import Response

if TYPE_CHECKING:
    from llmproxy.caching.lookup import CacheLookup


class CacheResult(NamedTuple):
    """What a request is answered with.

    @ivar secret: The provider's key, to be starred out of the answer; C{None} where that is done already.
    """

    answer: Response | Subscriber | CachedResponse
    secret: bytes | None = None


Fetch = Callable[[list[bytes]], Awaitable[tuple[Response, bytes]]]

# Failures that those who have joined need not find out for themselves.
_THE_PROVIDERS = (errors.UpstreamFailure, errors.CircuitOpen)


class CollapsedRequest:
    """The call that C{leader} makes. Others may join it until its answer turns out to be none that may be shared.

    Whoever leaves, leaves alone: the call goes on for the others. When the last one leaves, it is cancelled.

    @ivar leader: The request by which it is made.
    """

    _shared: Broadcast | None = None
    _entry: Entry | None = None
    _secret = b""
    _forgone = False

    def __init__(self, leader: CacheLookup) -> None:
        self.leader = leader
        self._caching = leader.caching
        self._waiting: list[tuple[Deferred[CacheResult | None], CacheLookup]] = []
        self._ends: list[Deferred[None]] = []
        self._over = False
        self._held = 0

    async def lead(self, fetch: Fetch) -> CacheResult:
        """Make the call, and wait for what is to be answered."""
        waiting = self._wait(self.leader)
        self._calling = Deferred.fromCoroutine(self._call(fetch))
        try:
            found = await waiting
        except CancelledError:
            await self.outlasted()  # whoever has joined goes on, and what that costs is this request's
            raise
        assert found is not None
        return found

    async def join(self, asking: CacheLookup) -> CacheResult | None:
        """What another request is answered with; C{None} where it must make a call of its own."""
        if self._shared is None:
            return await self._wait(asking)
        return self._reading(asking)

    async def outlasted(self) -> None:
        """Come back when nothing more comes of it, whoever leaves meanwhile."""
        while not self._over:
            end: Deferred[None] = Deferred()
            self._ends.append(end)
            try:
                await end
            except CancelledError:
                self._ends.remove(end)

    def forgo(self) -> None:
        """Whatever comes of it is not to be kept, and nobody joins any more."""
        self._forgone = True
        self._caching.landed(self)

    # Until there is an answer

    def _wait(self, asking: CacheLookup) -> Deferred[CacheResult | None]:
        waiting: Deferred[CacheResult | None] = Deferred(self._left)
        self._waiting.append((waiting, asking))
        return waiting

    def _left(self, waiting: Deferred[CacheResult | None]) -> None:
        self._waiting = [one for one in self._waiting if one[0] is not waiting]
        if not self._waiting and self._shared is None and not self._over:
            self._calling.cancel()

    async def _call(self, fetch: Fetch) -> None:
        request_time = self._caching.now()
        try:
            answer, self._secret = await fetch(self.leader.outgoing())
            at, wall = self._caching.now(), self._caching.wall()
            self._answered(answer, ResponseHead(answer.code, answer.phrase, answer.lines, request_time, at, wall))
        except Exception as e:  # told to those who wait, a cancelled wait included
            self._failed(e)

    def _failed(self, error: Exception) -> None:
        leader = self.leader
        if isinstance(error, _THE_PROVIDERS) and leader.may_serve_stale():
            self._give(leader.entry, "hit", "stale-if-error")
            return
        waiting = self._land()
        for each, asking in waiting:
            if asking is leader:
                each.errback(error)
            elif isinstance(error, _THE_PROVIDERS):
                each.errback(copy(error))
            else:
                each.callback(None)

    def _answered(self, answer: Response, received: ResponseHead) -> None:
        leader = self.leader
        if answer.code == 304 and leader.revalidates:
            answer.deliverBody(DiscardBody())  # there is none, but its connection may be used again
            self._freshen(received)
        elif answer.code in reuse.STALE_IF_ERROR_STATUSES and leader.may_serve_stale():
            answer.stopProducing()
            self._give(leader.entry, "hit", "stale-if-error")
        else:
            kept = leader.judged(received, answer)
            if isinstance(kept, Entry) and answer.code >= 400 and content_coding(answer.lines):
                kept = NotStored("coded-error")  # the provider's key may have to be masked within
            if isinstance(kept, Entry):
                self._share(answer, kept, list(received.lines))
            else:
                leader.why = kept
                self._hand_over(answer)

    # What may come of it

    def _freshen(self, received: ResponseHead) -> None:
        """The provider says that what was kept is still true."""
        leader = self.leader
        old = leader.entry
        assert old is not None
        entry = reuse.freshened(old, received, leader.plan.rules, leader.said)
        if not isinstance(entry, Entry):
            leader.forget()
            entry = old
        elif not self._forgone:
            self._caching.keep(leader, entry)
        self._give(entry, "revalidated")

    def _give(self, entry: Entry | None, status: str, why: str = "") -> None:
        assert entry is not None
        self.leader.why = why
        for each, asking in self._land():
            if asking is self.leader:
                each.callback(asking.give(entry, status))
            elif self._serves(asking, entry, failing=why != ""):
                each.callback(asking.give(entry, "coalesced"))
            else:
                each.callback(None)

    def _hand_over(self, answer: Response) -> None:
        """It may not be shared: it is the leader's, and the others make calls of their own."""
        leader, taken = self.leader, False
        if answer.code < 400 or answer.code in (404, 410):
            leader.forget()  # what was kept is not what the provider says now
        for each, asking in self._land():
            if asking is leader:
                taken = True
                each.callback(CacheResult(answer, self._secret))
            else:
                each.callback(None)
        if not taken:
            answer.stopProducing()

    def _share(self, answer: Response, entry: Entry, lines: list[bytes]) -> None:
        self._entry = entry
        self.leader.status = "stored"
        mask: KeyFilter | None = Mask(self._secret)
        if self._caching.scope != "shared" or content_coding(
            lines
        ):  # others may be given nothing of a key that is not theirs
            mask = mask_plan(answer.code, lines, self._secret, bytes, stream=entry.stream, whole=None).filter
        self._shared = shared = Broadcast(answer, lines, mask, self, self._caching.measuring(entry), self.leader.taps)
        waiting, self._waiting = self._waiting, []
        found = [(each, self._reading(asking)) for each, asking in waiting]
        shared.begin()
        for each, reading in found:
            each.callback(reading)
        shared.moved()

    def _reading(self, asking: CacheLookup) -> CacheResult | None:
        assert self._shared is not None and self._entry is not None
        if asking is not self.leader:
            if not self._serves(asking, self._entry):
                return None
            asking.status = "coalesced"
        return CacheResult(self._shared.reader())

    def _serves(self, asking: CacheLookup, entry: Entry, failing: bool = False) -> bool:
        """Whether the answer will do for another request than the one it was given to, as if it had been kept before.

        It must have been chosen by nothing that the two requests differ in.

        @param failing: The provider does not give a better one.
        """
        now = self._caching.now()
        will_do = reuse.verdict(entry, asking.said, now) != "validate"
        if not will_do and not (failing and reuse.may_serve_stale(entry, asking.said, now)):
            return False
        return selecting_fields(asking.lines, entry.vary) == selecting_fields(self.leader.lines, entry.vary)

    # What the shared answer tells

    def grown(self, more: int) -> bool:
        self._held += more
        self._caching.buffered += more
        self._caching.buffers.hold(more)
        return (
            not self._caching.buffers.full
            and self._held <= self._caching.max_object
            and self._caching.buffered <= self._caching.max_buffered
        )

    def closed(self) -> None:
        self._caching.landed(self)
        self._let_go()
        if self.leader.status == "stored":
            self.leader.status, self.leader.why = "miss", NotStored("too-large")

    def over(self, body: bytes | None) -> None:
        assert self._entry is not None and self._shared is not None
        why = "cut" if body is None else "forgone" if self._forgone else self._unfit(body)
        if body is None or why:
            if self.leader.status == "stored":
                self.leader.status, self.leader.why = "miss", NotStored(why)
            self._land()
            return
        entry = replace(self._entry, body=body, chunk_timings=tuple(self._shared.chunk_timings))
        self._end()
        self._caching.keep(self.leader, entry, self._land)  # until it is found there, others may join

    def _unfit(self, body: bytes) -> str:
        assert self._entry is not None
        if self._secret and self._secret in body:
            return "holds-a-secret"
        if self._entry.stream and not streams.is_complete(self.leader.plan.provider, body):
            return "stream-incomplete"
        return ""

    def _land(self) -> list[tuple[Deferred[CacheResult | None], CacheLookup]]:
        """Nobody can join any more; those who wait are to be told."""
        self._caching.landed(self)
        self._let_go()
        self._end()
        waiting, self._waiting = self._waiting, []
        return waiting

    def _end(self) -> None:
        self._over = True
        ends, self._ends = self._ends, []
        for end in ends:
            end.callback(None)

    def _let_go(self) -> None:
        self._caching.buffered -= self._held
        self._caching.buffers.hold(-self._held)
        self._held = 0
