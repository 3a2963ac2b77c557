"""A request's body on its way from the client to whoever wants it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, cast

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IConsumer
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer
from zope.interface import implementer

from llmproxy.errors import BuffersFull, ProxyError, RequestTooLarge
from llmproxy.wire.buffers import RETRY_AFTER_SECONDS, Buffers

MAX_HELD_BYTES = 64 * 1024  # bytes that are kept while nobody takes them; then the client is made to wait
JOINED_BYTES = 1024 * 1024  # of a body that is put together at its end
SMALL_BYTES = 4096  # of a body that came with its head: not worth counting

Tap = Callable[[bytes], object]


def _nobody() -> None:
    """Nobody waits for room."""


@implementer(IBodyProducer)
class RequestBody:
    """The body, as it arrives. One consumer may have it: give it to an Agent, or ask for it L{read_all}.

    Its Deferred fails with L{errors.RequestTooLarge}, L{errors.BodyUnreadable} (malformed chunks),
    L{errors.BodyTimeout} or L{errors.ClientGone}.

    @ivar length: Bytes that are announced, or C{UNKNOWN_LENGTH}.
    @ivar count: Bytes that have arrived.
    @ivar limit: Bytes beyond which it fails.
    @ivar taps: See every chunk as it passes to the consumer, or the whole when that is taken.
    @ivar started: Whether a consumer has asked for it.
    @ivar done: Whether all of it has arrived.
    """

    started = False
    count = 0

    _taps: list[Tap] | None = None
    _pieces: deque[bytes] | None = None
    _size = 0
    _most = MAX_HELD_BYTES
    _consumer: IConsumer | None = None
    _finished: Deferred[None] | None = None
    _error: BaseException | None = None
    _whole: bytes | None = None
    _paused = False
    _stopped = False
    _behind: Callable[[], bool] | None = None
    _when_over: Callable[[], object] | None = None
    _buffers: Buffers | None = None
    _counted = 0
    _to_come = 0  # bytes of these that have not come

    def __init__(self, length: Any, limit: int, room: Callable[[], None], buffers: Buffers | None = None) -> None:
        """
        @param room: Called whenever more can be taken than before.
        @param buffers: Where what is held of it is counted.
        """
        if buffers is not None:
            self._buffers = buffers
        self.length = length
        self.limit = limit
        self.done = length == 0
        self._room = room

    @classmethod
    def of(cls, body: bytes, limit: int, buffers: Buffers | None = None) -> RequestBody:
        """One that is all there."""
        upload = cls(len(body), limit, _nobody, buffers)
        if buffers is not None and len(body) > SMALL_BYTES:
            upload.hold(len(body))
        upload.count = len(body)
        upload._whole = body
        upload.done = True
        return upload

    @property
    def taps(self) -> list[Tap]:
        if self._taps is None:
            self._taps = []
        return self._taps

    # What a resource may ask

    @property
    def received(self) -> bytes | None:
        """The whole body, if all of it has arrived and no consumer was given it chunk by chunk."""
        if self._whole is None and self.done and not self.started and self._error is None:
            self._whole = b"".join(self._pieces or ())
            self._pieces = None
            taps, self._taps = self._taps, None
            for tap in taps or ():
                tap(self._whole)
        return self._whole

    @property
    def awaited(self) -> bool:
        """Whether it is for the client to go on: whoever takes the body would take more."""
        return self.started and not self.done and not self._paused and not self._pieces

    def read_all(self, limit: int) -> Deferred[bytes]:
        """Read all of it into memory; L{errors.RequestTooLarge} if it is longer than C{limit}, L{errors.BuffersFull} if
        too much is held already."""
        if self.received is not None:
            return succeed(self.received) if self.count <= limit else fail(RequestTooLarge())
        self.limit = min(self.limit, limit)
        if max(self.count, self.length if isinstance(self.length, int) else 0) > self.limit:
            self.failed(RequestTooLarge())
        elif self.length is not UNKNOWN_LENGTH and not self._reserve(self.length):
            self.failed(BuffersFull(retry_after=RETRY_AFTER_SECONDS))
        kept = _BoundedCollector(self._fits if self.length is UNKNOWN_LENGTH else None)

        def joined(_: None) -> bytes:
            self._whole = kept.whole()
            return self._whole

        return self.startProducing(kept).addCallback(joined)

    def _fits(self, data: bytes) -> bool:
        """Whether there is room for a further chunk of a body whose length nobody knows."""
        fits = self._reserve(len(data))
        if not fits:
            self.failed(BuffersFull(retry_after=RETRY_AFTER_SECONDS))
        return fits

    # What is held of it

    def release(self) -> None:
        """The request is over: nothing is held for it any more."""
        counted, self._counted, self._to_come = self._counted, 0, 0
        if self.done:
            self._behind = self._taps = None  # they know this, and would be left to the collector with it
        if counted and self._buffers is not None:
            self._buffers.hold(-counted)

    def hold(self, count: int) -> None:
        """So many bytes more, or less, are held for it until the request is over."""
        if self._buffers is not None:
            self._counted += count
            self._buffers.hold(count)

    def reserve(self, count: int) -> bool:
        """Count so many bytes as held for it until the request is over; C{False} where memory is tight."""
        return (self._buffers is None or not self._buffers.tight) and self._reserve(count)

    def count_beside(self, count: int) -> None:
        """So many bytes more, or less, are held by whoever reads it along; they may outlive the request."""
        if self._buffers is not None:
            self._buffers.hold(count)

    def _reserve(self, count: int) -> bool:
        if self._buffers is not None:
            if not self._buffers.reserve(count):
                return False
            self._counted += count
        return True

    def _passed(self, count: int) -> None:
        if self._counted:
            self.hold(-min(count, self._counted))

    # What a consumer asks

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        if self.started:
            return fail(RuntimeError("A request's body can be read once."))
        self.started = True
        if self._error is not None:
            return fail(self._error)
        if self._whole:
            self._pieces, self._size = deque((self._whole,)), len(self._whole)
        self._consumer = consumer
        finished: Deferred[None] = Deferred(lambda _: self.stopProducing())
        self._finished = finished
        self._room()
        self._pass_on()
        return finished

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        self._pass_on()

    def stopProducing(self) -> None:
        """Nobody wants the rest; its Deferred never fires."""
        self._stopped = True
        self._finished = None
        self._forget()
        self._room()

    # What the connection says

    @property
    def full(self) -> bool:
        """Whether as much is held here as may be, or whoever reads it along is behind."""
        return self._size >= self._most or (self._behind is not None and self._behind())

    def hold_all(self) -> bool:
        """Let all of a body of a known length be held until somebody takes it, and count what is to come as held from
        now on; C{False} where memory is too tight."""
        if self.length > self._most:
            to_come = self.length - self._size
            if not self.reserve(to_come):
                return False
            self._most, self._to_come = self.length, to_come
        return True

    def hold_no_more(self) -> None:
        """Let the client wait for somebody who takes it, as any other."""
        to_come, self._to_come, self._most = self._to_come, 0, MAX_HELD_BYTES
        self.hold(-to_come)

    def wait_for(self, behind: Callable[[], bool]) -> None:
        """Make the client wait while this says so; L{go_on} says that it does not any more."""
        self._behind = behind

    def when_over(self, call: Callable[[], object] | None) -> None:
        """Call this once all of it has arrived, or it is known that not all of it will; C{None}: nobody any more."""
        self._when_over = call

    def go_on(self) -> None:
        """There may be room again."""
        self._room()

    def arrived(self, data: bytes) -> None:
        """The next bytes of the body."""
        self.count += len(data)
        if self._stopped or self._error is not None:
            return
        if self.count > self.limit:
            self.failed(RequestTooLarge())
        elif self._consumer is None or self._paused or self._pieces:
            if self._pieces is None:
                self._pieces = deque()
            self._pieces.append(data)
            self._size += len(data)
            self._count_arrived(len(data))
        else:
            self._write(data)

    def _count_arrived(self, count: int) -> None:
        counted = min(count, self._to_come)
        self._to_come -= counted
        self.hold(count - counted)

    def completed(self) -> None:
        """All of it has arrived."""
        self.done = True
        self._end()
        self._over()

    def failed(self, error: ProxyError | Exception) -> None:
        """The rest will not come. What is held is dropped: half a body is of no use to anybody."""
        if self._stopped or self._error is not None or (self.done and self._finished is None):
            return
        self._error = error
        self._forget()
        if self._finished is not None:
            finished, self._finished = self._finished, None
            finished.errback(error)
        self._over()

    def _over(self) -> None:
        call, self._when_over = self._when_over, None
        if call is not None:
            call()

    def _write(self, data: bytes) -> None:
        for tap in self._taps or ():
            tap(data)
        self._consumer.write(data)  # type: ignore[union-attr]

    def _pass_on(self) -> None:
        while self._pieces and not self._paused and self._consumer is not None:
            data = self._pieces.popleft()
            self._size -= len(data)
            self._passed(len(data))
            self._write(data)
        self._room()
        self._end()

    def _end(self) -> None:
        if self.done and not self._pieces and self._finished is not None:
            finished, self._finished = self._finished, None
            self._consumer = None
            finished.callback(None)

    def _forget(self) -> None:
        self._consumer = self._pieces = None
        self._size = 0
        self.release()


@implementer(IConsumer)
class _BoundedCollector:
    """A consumer that keeps the bytes, as long as they fit.

    A long body is put together as it comes: to join it at the end would hold the reactor, and need the memory twice.
    """

    def __init__(self, fits: Callable[[bytes], bool] | None) -> None:
        self._pieces: list[bytes] = []
        self._size = 0
        self._long = bytearray()
        self._fits = fits

    def write(self, data: bytes) -> None:
        if self._fits is not None and not self._fits(data):
            return
        self._size += len(data)
        if self._size <= JOINED_BYTES:
            self._pieces.append(data)
        elif self._pieces:
            self._long += b"".join((*self._pieces, data))
            self._pieces.clear()
        else:
            self._long += data

    def whole(self) -> bytes:
        """All that came. Not to be changed."""
        return cast("bytes", self._long) if self._long else b"".join(self._pieces)

    def registerProducer(self, producer: object, streaming: bool) -> None:
        """It never needs a pause."""

    def unregisterProducer(self) -> None:
        """There was none."""
