"""The body of one provider's response, for all who want it, or for nobody."""

from __future__ import annotations

from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from zope.interface import implementer

from llmproxy.http.masking import KeyFilter, KeyFound
from llmproxy.wire.client.response import Response

MAX_BACKLOG_BYTES = 1024 * 1024  # that a slow subscriber may lie behind, once the response is too large to be stored


class SubscriberTooSlow(Exception):
    """A subscriber lay too far behind the others.

    @cvar outcome: How its relay tells it.
    """

    outcome = "client_stalled"


class BroadcastOwner(Protocol):
    """Told what becomes of a broadcast."""

    def grown(self, more: int) -> bool:
        """So many further bytes are held; whether they may be."""

    def closed(self) -> None:
        """Nobody can join any more."""

    def over(self, body: bytes | None) -> None:
        """It has ended: with this whole body, or without one that could be stored."""


class Broadcast:
    """A response's body, sent to all who subscribe: what has come so far, then each chunk as it comes.

    All of it is held while it may still be stored, so that a late subscriber gets all of it, and a slow one holds up
    nobody and costs nothing. Once it cannot be stored, nobody may join, and only what the slowest has not taken yet is
    held; one who lies more than L{MAX_BACKLOG_BYTES} behind is cut off. The provider is paused only when all are.

    @ivar lines: The response's field lines, with the provider's key masked.
    @ivar chunk_timings: For every chunk: its length, and seconds since the one before.
    """

    def __init__(
        self,
        response: Response,
        lines: list[bytes],
        mask: KeyFilter | None,
        owner: BroadcastOwner,
        clock: IReactorTime | None = None,
    ) -> None:
        """
        @param mask: Masks the provider's key in the body.
        @param clock: By which the time between chunks is measured; C{None}: it is not.
        """
        self.response = response
        self.lines = lines
        self.chunk_timings: list[tuple[int, float]] = []
        self._mask = mask
        self._clock = clock
        self._owner = owner
        self._chunks: list[bytes] = []
        self._first = 0  # how many chunks have been let go
        self._size = 0  # bytes that have come
        self._storable = True
        self._subscribers: list[Subscriber] = []
        self._end: Failure | None = None
        self._held = False
        self._last = 0.0 if clock is None else clock.seconds()

    def begin(self) -> None:
        """Take the body."""
        self.response.deliverBody(self)

    def subscriber(self, lines: list[bytes] | None = None) -> Subscriber:
        """One more who takes it, with these field lines; C{None}: with the provider's own."""
        subscriber = Subscriber(self, self.lines if lines is None else lines)
        self._subscribers.append(subscriber)
        self._balance()
        return subscriber

    @property
    def whole(self) -> bytes | None:
        """The body, where all of it has come."""
        complete = self._end is not None and self._end.check(ResponseDone) is not None
        return b"".join(self._chunks) if complete and self._storable else None

    # What the provider sends

    def makeConnection(self, transport: Any) -> None:
        """The response is its own transport."""

    def dataReceived(self, data: bytes) -> None:
        if self._mask is not None:
            try:
                data = self._mask.feed(data)
            except KeyFound as e:
                self.response.stopProducing()
                self.connectionLost(Failure(e))
                return
        self._add(data)

    def connectionLost(self, reason: Failure) -> None:
        if self._end is not None:
            return
        if self._mask is not None:
            self._add(self._mask.end())
        self._end = reason
        self._over(self.whole)
        for subscriber in list(self._subscribers):
            subscriber.flow()

    def _over(self, body: bytes | None) -> None:
        owner = self._owner
        del self._owner  # who knows this: nothing is to be left to the collector
        owner.over(body)

    def _add(self, data: bytes) -> None:
        if not data or self._end is not None:
            return
        self._chunks.append(data)
        self._size += len(data)
        if self._storable:
            self._measure(data)
            if not self._owner.grown(len(data)):
                self.give_up()
        for subscriber in list(self._subscribers):
            subscriber.flow()
        if not self._storable:
            self._let_go()

    def _measure(self, data: bytes) -> None:
        if self._clock is not None:
            now = self._clock.seconds()
            self.chunk_timings.append((len(data), round(now - self._last, 4)))
            self._last = now

    def give_up(self) -> None:
        """It cannot be stored: hold no more of it than need be."""
        if self._storable:
            self._storable = False
            self.chunk_timings.clear()
            self._owner.closed()

    def _let_go(self) -> None:
        """Forget what everybody has taken, and who takes too little."""
        if len(self._subscribers) > 1:
            for subscriber in [each for each in self._subscribers if self._size - each.taken > MAX_BACKLOG_BYTES]:
                subscriber.cut()
        needed = min((subscriber.at for subscriber in self._subscribers), default=self._first + len(self._chunks))
        del self._chunks[: needed - self._first]
        self._first = needed

    # What those who take it do

    def chunk(self, number: int) -> bytes | None:
        at = number - self._first
        return self._chunks[at] if at < len(self._chunks) else None

    @property
    def end(self) -> Failure | None:
        return self._end

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """One of them takes no more; with the last one the provider is stopped."""
        if subscriber not in self._subscribers:
            return
        self._subscribers.remove(subscriber)
        if self._end is not None:
            return
        if self._subscribers:
            self._balance()
            return
        self.give_up()
        self.response.stopProducing()
        if self._end is None:
            self._end = Failure(SubscriberTooSlow())
            self._over(None)

    def moved(self) -> None:
        """One of them wants a pause, or has had one."""
        self._balance()

    def _balance(self) -> None:
        held = bool(self._subscribers) and all(subscriber.held for subscriber in self._subscribers)
        if held != self._held and self._end is None:
            self._held = held
            (self.response.pauseProducing if held else self.response.resumeProducing)()


@implementer(IPushProducer)
class Subscriber:
    """As L{llmproxy.wire.client.response.Response}, for one of those who take the broadcast.

    @ivar at: The number of the next chunk; C{taken}: bytes before that.
    """

    held = False
    taken = 0

    _protocol: Any = None
    _flowing = False

    def __init__(self, broadcast: Broadcast, lines: list[bytes]) -> None:
        self._broadcast = broadcast
        self.code = broadcast.response.code
        self.phrase = broadcast.response.phrase
        self.lines = lines
        self.length = broadcast.response.length
        self.at = 0

    @property
    def whole(self) -> bytes | None:
        body = self._broadcast.whole
        if body is not None:
            self._broadcast.unsubscribe(self)
        return body

    def deliverBody(self, protocol: Any) -> None:
        self._protocol = protocol
        protocol.makeConnection(self)
        self.flow()

    def flow(self) -> None:
        """Take what there is, unless that is too much just now."""
        if self._flowing:
            return
        self._flowing = True
        while self._protocol is not None and not self.held:
            chunk = self._broadcast.chunk(self.at)
            if chunk is None:
                break
            self.at += 1
            self.taken += len(chunk)
            self._protocol.dataReceived(chunk)
        self._flowing = False
        if self._protocol is not None and not self.held and self._broadcast.end is not None:
            self._finish(self._broadcast.end)

    def cut(self) -> None:
        """Too slow: what it has got is not the whole."""
        self._finish(Failure(SubscriberTooSlow()))

    def _finish(self, end: Failure) -> None:
        self._broadcast.unsubscribe(self)
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            protocol.connectionLost(end)

    def pauseProducing(self) -> None:
        self.held = True
        self._broadcast.moved()

    def resumeProducing(self) -> None:
        self.held = False
        self._broadcast.moved()
        self.flow()

    def stopProducing(self) -> None:
        self._protocol = None
        self._broadcast.unsubscribe(self)


class DiscardBody(TwistedProtocol):
    """Takes a body that no client is waiting for. Give it to C{deliverBody}.

    @ivar done: Fires with whether the body was complete. Cancelled, it stops whoever sends it.
    """

    def __init__(self) -> None:
        self.done: Deferred[bool] = Deferred(lambda _: self.transport.stopProducing())  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        """Of no interest."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.done.called:
            self.done.callback(isinstance(reason.value, ResponseDone))
