"""A request on its way out: the head, and the body as its producer brings it, framed and held back as need be."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IConsumer, IPushProducer
from twisted.python.failure import Failure
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer
from zope.interface import implementer

from llmproxy import errors
from llmproxy.wire.body_framing import LAST_CHUNK, chunk
from llmproxy.wire.client.receipt import sent_bytes

LONG_BYTES = 256 * 1024  # of a body that leaves at once
MAX_JOINED_BYTES = 65536  # more than this is not copied only to leave in one packet with the head


@implementer(IBodyProducer)
class BytesBody:
    """A body that is all there, and can be sent as often as need be.

    A long one leaves in chunks, as the provider takes them: written at once it would be in memory twice.
    """

    _sending: Deferred[None] | None = None
    _consumer: IConsumer | None = None
    _at = 0
    _held = False

    def __init__(self, received: bytes) -> None:
        self.received = received
        self.length = len(received)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        if self.length <= LONG_BYTES:
            consumer.write(self.received)
            return succeed(None)
        self._consumer, self._at, self._held = consumer, 0, False
        sending: Deferred[None] = Deferred()
        self._sending = sending
        self._go_on()
        return sending

    def pauseProducing(self) -> None:
        self._held = True

    def resumeProducing(self) -> None:
        self._held = False
        self._go_on()

    def stopProducing(self) -> None:
        self._consumer = self._sending = None

    def _go_on(self) -> None:
        while self._consumer is not None and not self._held and self._at < self.length:
            piece = bytes(self.received[self._at : self._at + LONG_BYTES])
            self._at += len(piece)
            self._consumer.write(piece)
        if self._at >= self.length and self._sending is not None:
            sending, self._sending, self._consumer = self._sending, None, None
            sending.callback(None)


def whole_of(body: IBodyProducer | None) -> bytes | None:
    """All of a body that can be sent as it is; C{None} where it cannot. One whose length was not known is sent in
    chunks, also where all of it has come since that was said."""
    if body is None or body.length == UNKNOWN_LENGTH:
        return None
    whole: bytes | None = getattr(body, "received", None)
    return whole


def framing(method: bytes, body: IBodyProducer | None) -> bytes:
    """The field line that tells how long the body is; C{b""} where none is expected."""
    if body is None:
        return b"Content-Length: 0" if method in (b"POST", b"PUT", b"PATCH") else b""
    if body.length is UNKNOWN_LENGTH or body.length == UNKNOWN_LENGTH:
        return b"Transfer-Encoding: chunked"
    return b"Content-Length: %d" % body.length


@implementer(IConsumer, IPushProducer)
class RequestWriter:
    """Sends one request that has a body, at the pace of the transport.

    @ivar started: Whether the body's producer was asked for anything.
    @ivar done: Whether all of it was written.
    @ivar sent_before: All that was written on the connection before it (L{receipt.sent_bytes}).
    """

    sent_before: int | None = None
    _at_once = 0

    def __init__(
        self,
        head: bytes,
        body: IBodyProducer,
        write: Callable[[bytes], bool],
        transport: Any,
        failed: Callable[[Failure], None],
    ) -> None:
        """
        @param write: Writes to the connection; says whether the connection took it.
        @param failed: Called when the body could not be read to its end, or is not as long as was said.
        """
        self._head = head
        self._body = body
        self._write = write
        self._transport = transport
        self._failed = failed
        self._left = None if body.length == UNKNOWN_LENGTH else int(body.length)
        self._held = False
        self._over = False
        self.started = False
        self.done = False

    @property
    def finished(self) -> bool:
        """Whether all of it was written, and the transport holds no more of it than it likes to."""
        return self.done and not self._held

    def send_at_once(self, connection: socket.socket) -> bool:
        """Send head and body together, uncopied, where the body is all there and not long; C{False}: L{start} sends
        what has not left.

        @param connection: Nothing waits to be written to it.
        """
        whole = whole_of(self._body)
        if whole is None or len(whole) > LONG_BYTES:
            return False
        try:
            self._at_once = connection.sendmsg((self._head, whole))
        except OSError:
            return False
        if self._at_once == len(self._head) + len(whole):
            return True
        if self._at_once:
            rest = (self._head + whole)[self._at_once :]
            self._head, self._body, self._left = b"", BytesBody(rest), len(rest)
        return False

    def start(self) -> None:
        before = sent_bytes(self._transport)
        self.sent_before = None if before is None else before - self._at_once
        self._transport.registerProducer(self, True)
        if self._over:
            return
        # A body that is all there leaves together with the head; for any other the head does not wait.
        if getattr(self._body, "received", None) is None and not self._flush():
            self._let_go()
            return
        self.started = True
        try:
            ending = self._body.startProducing(self)
        except Exception:
            self._broke(Failure())
            return
        self._flush()
        ending.addCallbacks(self._whole, self._broke)

    def stop(self) -> None:
        """Send no more, and let the producer know."""
        if self._over:
            return
        self._let_go()
        self._stop_body()

    # What the body's producer calls

    def write(self, data: bytes) -> None:
        if self._over or not data:
            return
        if self._left is None:
            data = chunk(data)
        elif len(data) > self._left:
            self._mismatch("longer")
            return
        else:
            self._left -= len(data)
        if self._head and len(data) < MAX_JOINED_BYTES:
            data, self._head = self._head + data, b""
        self._flush()
        self._write(data)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Nothing: an C{IBodyProducer} is known already."""

    def unregisterProducer(self) -> None:
        """Nothing: see C{registerProducer}."""

    # What the transport calls

    def pauseProducing(self) -> None:
        self._held = True
        if not self.done and not self._over:
            self._body.pauseProducing()

    def resumeProducing(self) -> None:
        self._held = False
        if self.done:
            self._let_go()
        elif not self._over:
            self._body.resumeProducing()

    def stopProducing(self) -> None:
        """The connection is lost."""
        if not self._over:
            self._over = True
            self._stop_body()

    # How it ends

    def _whole(self, _: object) -> None:
        if self._over:
            return
        if self._left:
            self._mismatch("shorter")
            return
        self.done = True
        if self._left is None:
            self._write(LAST_CHUNK)
        if not self._held:
            self._let_go()

    def _broke(self, reason: Failure) -> None:
        if not self._over:
            self._let_go()
            self._failed(reason)

    def _mismatch(self, which: str) -> None:
        self._let_go()
        self._stop_body()
        self._failed(Failure(errors.BodyUnreadable(f"The request body is {which} than was said.")))

    def _flush(self) -> bool:
        head, self._head = self._head, b""
        return not head or self._write(head)

    def _let_go(self) -> None:
        if not self._over:
            self._over = True
            self._transport.unregisterProducer()

    def _stop_body(self) -> None:
        if self.started and not self.done:
            self._body.stopProducing()
