"""One answer of a provider's, for all who want it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from zope.interface import implementer

from llmproxy.http.masking import KeyFilter, KeyFound
from llmproxy.wire.client.response import Response

MAX_BACKLOG_BYTES = 1024 * 1024  # that a slow subscriber may lie behind, once the response is too large to be stored


class SubscriberTooSlow(Exception):
    """A reader lay too far behind the others.

    @cvar outcome: How its relay tells it.
    """

    outcome = "client_stalled"


class BroadcastOwner(Protocol):
    """Whoever a shared answer tells what became of it."""

    def grown(self, more: int) -> bool:
        """So many further bytes are held; whether they may be."""

    def closed(self) -> None:
        """Nobody can join any more."""

    def over(self, body: bytes | None) -> None:
        """It has ended: with this whole body, or without one that could be kept."""


class Broadcast:
    """An answer's body, handed to everybody who takes it: what has come so far, then each piece as it comes.

    All of it is held while it may still be kept, so that one who comes late gets all of it, and one who reads slowly
    holds up nobody and costs nothing. Once it cannot be kept, nobody may join, and only what the slowest has not taken
    yet is held; who lies more than L{MAX_BACKLOG_BYTES} behind is cut off. The provider is held back only when all are.

    @ivar lines: The answer's lines, with the provider's key starred out.
    @ivar chunk_timings: For every piece: its length, and seconds since the one before.
    """

    def __init__(
        self,
        answer: Response,
        lines: list[bytes],
        mask: KeyFilter | None,
        told: BroadcastOwner,
        clock: IReactorTime | None = None,
        taps: Sequence[Callable[[bytes], object]] = (),
    ) -> None:
        """
        @param taps: See every piece once, whoever reads it.
        @param mask: Stars the provider's key out of the body.
        @param clock: By which the chunk_timings between pieces are measured; C{None}: they are not.
        """
        self.answer = answer
        self.lines = lines
        self.chunk_timings: list[tuple[int, float]] = []
        self._mask = mask
        self._clock = clock
        self._told = told
        self._taps = taps
        self._pieces: list[bytes] = []
        self._first = 0  # how many pieces have been let go
        self._size = 0  # bytes that have come
        self._keeping = True
        self._readers: list[Subscriber] = []
        self._end: Failure | None = None
        self._held = False
        self._last = 0.0 if clock is None else clock.seconds()

    def begin(self) -> None:
        """Take the body."""
        self.answer.deliverBody(self)

    def reader(self) -> Subscriber:
        """One more who takes it."""
        reader = Subscriber(self)
        self._readers.append(reader)
        self._balance()
        return reader

    @property
    def whole(self) -> bytes | None:
        """The body, where all of it has come."""
        complete = self._end is not None and self._end.check(ResponseDone) is not None
        return b"".join(self._pieces) if complete and self._keeping else None

    # What the provider sends

    def makeConnection(self, transport: Any) -> None:
        """The answer is its own transport."""

    def dataReceived(self, data: bytes) -> None:
        if self._mask is not None:
            try:
                data = self._mask.feed(data)
            except KeyFound as e:
                self.answer.stopProducing()
                self.connectionLost(Failure(e))
                return
        self._add(data)

    def connectionLost(self, reason: Failure) -> None:
        if self._end is not None:
            return
        if self._mask is not None:
            self._add(self._mask.end())
        self._end = reason
        self._told.over(self.whole)
        for reader in list(self._readers):
            reader.flow()

    def _add(self, data: bytes) -> None:
        if not data or self._end is not None:
            return
        for tap in self._taps:
            tap(data)
        self._pieces.append(data)
        self._size += len(data)
        if self._keeping:
            self._measure(data)
            if not self._told.grown(len(data)):
                self.give_up()
        for reader in list(self._readers):
            reader.flow()
        if not self._keeping:
            self._let_go()

    def _measure(self, data: bytes) -> None:
        if self._clock is not None:
            now = self._clock.seconds()
            self.chunk_timings.append((len(data), round(now - self._last, 4)))
            self._last = now

    def give_up(self) -> None:
        """It cannot be kept: hold no more of it than need be."""
        if self._keeping:
            self._keeping = False
            self.chunk_timings.clear()
            self._told.closed()

    def _let_go(self) -> None:
        """Forget what everybody has taken, and who takes too little."""
        for reader in [r for r in self._readers if len(self._readers) > 1 and self._size - r.taken > MAX_BACKLOG_BYTES]:
            reader.cut()
        needed = min((reader.at for reader in self._readers), default=self._first + len(self._pieces))
        del self._pieces[: needed - self._first]
        self._first = needed

    # What those who take it do

    def piece(self, number: int) -> bytes | None:
        at = number - self._first
        return self._pieces[at] if at < len(self._pieces) else None

    @property
    def end(self) -> Failure | None:
        return self._end

    def left(self, reader: Subscriber) -> None:
        """One of them takes no more; with the last one the provider is stopped."""
        if reader not in self._readers:
            return
        self._readers.remove(reader)
        if self._end is not None:
            return
        if self._readers:
            self._balance()
            return
        self.give_up()
        self.answer.stopProducing()
        if self._end is None:
            self._end = Failure(SubscriberTooSlow())
            self._told.over(None)

    def moved(self) -> None:
        """One of them wants a pause, or has had one."""
        self._balance()

    def _balance(self) -> None:
        held = bool(self._readers) and all(reader.held for reader in self._readers)
        if held != self._held and self._end is None:
            self._held = held
            (self.answer.pauseProducing if held else self.answer.resumeProducing)()


@implementer(IPushProducer)
class Subscriber:
    """As L{llmproxy.wire.client.response.Response}, for one of those who take a shared one.

    @ivar at: The number of the next piece; C{taken}: bytes before that.
    """

    held = False
    taken = 0

    _protocol: Any = None
    _flowing = False

    def __init__(self, shared: Broadcast) -> None:
        self._shared = shared
        self.code = shared.answer.code
        self.phrase = shared.answer.phrase
        self.lines = shared.lines
        self.length = shared.answer.length
        self.at = 0

    @property
    def whole(self) -> bytes | None:
        body = self._shared.whole
        if body is not None:
            self._shared.left(self)
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
            piece = self._shared.piece(self.at)
            if piece is None:
                break
            self.at += 1
            self.taken += len(piece)
            self._protocol.dataReceived(piece)
        self._flowing = False
        if self._protocol is not None and not self.held and self._shared.end is not None:
            self._finish(self._shared.end)

    def cut(self) -> None:
        """Too slow: what it has got is not the whole."""
        self._finish(Failure(SubscriberTooSlow()))

    def _finish(self, end: Failure) -> None:
        self._shared.left(self)
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            protocol.connectionLost(end)

    def pauseProducing(self) -> None:
        self.held = True
        self._shared.moved()

    def resumeProducing(self) -> None:
        self.held = False
        self._shared.moved()
        self.flow()

    def stopProducing(self) -> None:
        self._protocol = None
        self._shared.left(self)
