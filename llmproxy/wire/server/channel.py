"""One client's connection: requests in, responses out, in order, with bounded buffers and an end to every wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHalfCloseableProtocol,
    IPushProducer,
    ISSLTransport,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.http import datetimeToString
from twisted.web.iweb import UNKNOWN_LENGTH
from zope.interface import implementer

from llmproxy.errors import BodyTimeout, BodyUnreadable, BuffersFull, ClientGone, ProxyError
from llmproxy.wire.buffers import RETRY_AFTER_SECONDS
from llmproxy.wire.deadline import Deadline
from llmproxy.wire.parser import CHUNKED, BadMessage, RequestHead
from llmproxy.wire.server.channel_state import (
    CLOSED,
    FLUSHING,
    IDLE,
    LINGERING,
    OVER,
    READING,
    RESPONDING,
    ChannelState,
)
from llmproxy.wire.server.connection_context import ConnectionContext
from llmproxy.wire.server.direct import ChannelRequest
from llmproxy.wire.server.error_response import refusal
from llmproxy.wire.server.request import Request
from llmproxy.wire.server.request_body import RequestBody
from llmproxy.wire.server.request_decoder import RequestDecoder
from llmproxy.wire.server.response_writer import ResponseWriter
from llmproxy.wire.socket_state import has_arrived

MAX_PIPELINED_BYTES = 64 * 1024  # bytes of later requests that are kept while one is being answered
TURN_SECONDS = 0.005  # that one client's requests may take in one turn of the reactor
MAX_COLLECTED_BYTES = 1024 * 1024  # bytes of a body that are read for a resource that wants it whole
MIN_PROGRESS_BYTES = 1024  # bytes of a body that must arrive within every body timeout
CLOSE_TIMEOUT_SECONDS = 60.0  # seconds for what is written to be read, before the connection is torn down
ABORT_TIMEOUT_SECONDS = 5.0  # likewise where the response was cut
LINGER_TIMEOUT_SECONDS = 10.0  # seconds for a client to see a response that came before it had sent everything
PEER_CHECK_SECONDS = 0.1  # seconds between looks at a peer that cannot be read from
PROBE_CHECK_SECONDS = 0.02  # seconds for what was written to such a peer to come back as a reset


@implementer(IPushProducer, IHalfCloseableProtocol)
class Channel(Protocol):
    """The server's side of a connection.

    Reading goes on while a response is prepared, within bounds, so that a client that leaves is noticed at once.

    Its states and their table: L{ChannelState}.

    @ivar persistent: Whether another request may follow the present one.
    @ivar remote: The address of the peer.
    @ivar expected: See L{DirectChannel<llmproxy.wire.server.direct.DirectChannel>}.
    """

    transport: Any
    expected: Any = None
    _writer: ResponseWriter

    def __init__(self, context: ConnectionContext, remote: str) -> None:
        self._context = context
        self._direct = context.direct
        self.limits = context.limits
        self.site = self.factory = context.site
        self.remote = remote
        self.persistent = True
        self._state = READING
        self._decoder = RequestDecoder(context.limits.messages, context.known_heads)
        self._deadline = Deadline(context.deadlines, self._expired)
        self._request: ChannelRequest | None = None
        self._producer: Any = None
        self._body: RequestBody | None = None  # the body that is arriving
        self._progress = 0  # how much of it had arrived when its time began
        self._later: IDelayedCall | None = None  # goes on with the requests that this turn had no time for
        self._watch: Deadline | None = None  # looks whether the peer is there, once that is in doubt
        self._awaits_continue = False  # the client waits for our word before it sends its body
        self._discarding = False  # the rest of the body is of no use
        self._working = False
        self._reading_paused = False
        self._half_closed = False  # the client has said that it will send no more
        self._end_seen = False  # it has said so behind bytes that were not read yet
        self._extends_flush = False  # a client that still takes what was written gets more time for it

    @property
    def state(self) -> ChannelState:
        return self._state

    @property
    def write_soon(self) -> Callable[[bytes], None]:
        """No attribute: an object with thirty has an own table of their names (CPython), which takes 1.7 KB."""
        return self._writer.write_soon

    # What the transport says

    def connectionMade(self) -> None:
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
        writer = self._writer = ResponseWriter(self.transport, self._context.writing, self._too_slow)
        self.write, self.write_final = writer.write, writer.write_final
        self.transport.registerProducer(self, True)
        self._context.connections.add(self)
        self.persistent = not self._context.connections.draining
        descriptors = self._context.descriptors
        own = None if writer.socket is None else writer.socket.fileno()
        if descriptors is not None and not descriptors.taken_by_client(own):
            self._context.on_refused(503, "descriptors_exhausted", self.remote, "")
            self._leave()
            return
        self._wait(READING, self._context.limits.head_timeout)

    def dataReceived(self, data: bytes) -> None:
        try:
            rests = self._state is IDLE or (self._state is READING and not self._decoder.partial)
            busy = self._decoder.buffer or self._later or self._writer.blocked
            if self._direct is not None and rests and not busy and self._direct.take(self, data):
                return
            self._take(data)
        except MemoryError:
            self._starved()

    def _take(self, data: bytes) -> None:
        if self._state in OVER or self._discarding:
            return
        self._decoder.feed(data)
        if self._body is not None:
            self._read_body()
        elif self._request is not None:
            self._regulate()
            return
        self._proceed()

    def readConnectionLost(self) -> None:
        """The client will send no more. Whether it still listens is found out by writing what it may ignore."""
        self._half_closed = True
        request = self._request
        if self._state in OVER:
            if self._state is LINGERING:
                self._state = FLUSHING
            self.transport.loseConnection()
        elif request is None:
            self._close() if self._answered_all else self._watch_peer()
        else:
            self._find_out(self._body is None and self._probe(request))

    def writeConnectionLost(self) -> None:
        """We said that we will send no more."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._state, self.expected = CLOSED, None
        for deadline in filter(None, (self._deadline, self._watch)):
            deadline.end()
        self._writer.close()
        self._context.connections.remove(self)
        request = self._detach()
        if request is not None:
            request.connectionLost(reason)

    def pauseProducing(self) -> None:
        self._writer.pause()
        if self._producer is not None:
            self._producer.pauseProducing()

    def resumeProducing(self) -> None:
        self._writer.resume()
        if self._producer is not None:
            self._producer.resumeProducing()
        self._proceed()

    def stopProducing(self) -> None:
        """The connection is lost; C{connectionLost} sees to the rest."""

    # What a request says

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self._producer = producer
        if self._writer.blocked:
            producer.pauseProducing()

    def unregisterProducer(self) -> None:
        self._producer = None

    def request_done(self) -> None:
        """The response is out: on to the next request, or to the end."""
        request = self._request
        if request is not None:
            request.upload.release()
            self._request = self._producer = None
        if self._state in OVER:
            return
        if self._body is not None:
            self._body.failed(ClientGone())  # whoever still waits for the rest of the body
        if self._body is not None or self._discarding or not self.persistent:
            end = self._close if self._body is None and not self._discarding else self._linger
            self._discarding = True  # also what comes until it ends
            self._writer.then(end)
        else:
            self._state = IDLE
            seconds = self.limits.keepalive_timeout
            self._deadline.set(seconds) if seconds else self._deadline.clear()
            if self._decoder.buffer or self._reading_paused or self._half_closed:
                self._proceed()

    def begin_direct(self, request: ChannelRequest) -> None:
        """It is under way from now on, and needs no L{Request}."""
        self._state = RESPONDING
        self._deadline.at = None
        self._request = request

    def hand_over(self, request: ChannelRequest) -> None:
        """What is under way goes on as this."""
        self._request = request

    def cut(self, *, visible: bool) -> None:
        """End it in the middle of a response.

        @param visible: Whether the end of the connection alone tells that it is the middle; otherwise it is reset.
        """
        self._detach()
        self._writer.leave()
        if visible:
            self._close(ABORT_TIMEOUT_SECONDS)
        else:
            self._state = CLOSED
            self.transport.abortConnection()

    def getPeer(self) -> IAddress:
        return self.transport.getPeer()  # type: ignore[no-any-return]

    def getHost(self) -> IAddress:
        return self.transport.getHost()  # type: ignore[no-any-return]

    def isSecure(self) -> bool:
        return ISSLTransport.providedBy(self.transport)

    def loseConnection(self) -> None:
        self._close()

    def abortConnection(self) -> None:
        self._leave()

    # What the site says

    def drain(self, *, spare_idle: bool = False) -> None:
        self.persistent = False
        if self._state is LINGERING or (self._state is IDLE and not spare_idle and not has_arrived(self.transport)):
            self._close()

    def close_idle(self) -> None:
        """Close it if a request has been answered and none is under way, as a client must expect at any time."""
        if self._state is IDLE and not self._decoder.buffer:
            self._close()

    # Heads

    def _proceed(self) -> None:
        """Take requests as long as there are any and nobody is in the way; a loop, for responses may come at once."""
        if self._working:
            return
        if self._later is not None:
            self._regulate()
            return
        self._working = True
        seconds = self._context.reactor.seconds
        end = seconds() + TURN_SECONDS
        try:
            while (
                self._decoder.buffer and self._request is None and not self._writer.blocked and self._state not in OVER
            ):
                if seconds() > end:
                    self._later = self._context.reactor.callLater(0, self._go_on)
                    break
                self._read_head()
        finally:
            self._working = False
        if self._state in OVER:
            return
        self._regulate()
        if self._half_closed and self._answered_all:
            self._close()

    @property
    def _answered_all(self) -> bool:
        """Whether no request that has arrived waits: for its response, for the next turn, or for the client to read."""
        return self._request is None and self._later is None and not self._decoder.buffer

    def _go_on(self) -> None:
        self._later = None
        if self._state not in OVER:
            self._proceed()

    def _read_head(self) -> None:
        event = self._decoder.next_head()
        if event is None:
            if self._state is not READING:
                self._wait(READING, self._context.limits.head_timeout)
        elif isinstance(event, BadMessage):
            self._refuse(event.status, event.code, event.message)
        else:
            self._accept(event)

    def _accept(self, head: RequestHead) -> None:
        self._state = RESPONDING
        self._deadline.clear()
        self.persistent = head.keep_alive and not self._context.connections.draining
        length, limit = head.length, self._context.limits.messages.body
        direct = None if head.known is None else self._direct
        complete = self._decoder.take_body() if length <= limit else None
        if complete is not None:
            if direct is not None and direct.serve(self, head, complete):
                return
            body = RequestBody.of(complete, limit, self._context.buffers)
        else:
            body = self._body = RequestBody(
                UNKNOWN_LENGTH if length == CHUNKED else length, limit, self._on_space, self._context.buffers
            )
            self._awaits_continue = head.expect_continue
            if self._decoder.buffer:
                self._read_body()
            self._await_body()
            if direct is not None and direct.wait(self, head, body):
                return
        self._request = request = Request(self, head, body)
        self._dispatch(request)

    def _dispatch(self, request: Request) -> None:
        if request.path == b"*":
            request.begin(204, b"No Content", [self._context.allow, b"Date: " + datetimeToString()], None)
            request.finish()
            return
        try:
            resource = self.site.getResourceFor(request)
        except Exception:
            request.processingFailed(Failure())
            return
        if getattr(resource, "starts_on_head", False) or request.upload.received is not None:
            request.start(resource)
        else:
            self._collect(request, resource)

    def _collect(self, request: Request, resource: object) -> None:
        """Read the body first, for a resource that wants it in C{request.content}."""

        def unread(failure: Failure) -> None:
            error = failure.value
            if isinstance(error, ProxyError) and not failure.check(ClientGone) and self._request is request:
                request.finished = 1
                self._detach()
                self._refuse(error.status, error.code, error.message)

        request.upload.read_all(MAX_COLLECTED_BYTES).addCallbacks(lambda _: request.start(resource), unread)

    def _refuse(self, status: int, code: str, message: str) -> None:
        """Say what is wrong with a request that nobody else has seen, and be done with this client."""
        request_id = self._context.fresh_id()
        self._context.on_refused(status, code, self.remote, request_id)
        self.write(refusal(status, code, message, request_id, self._context.allow))
        self._linger()

    # Bodies

    def _read_body(self) -> None:
        body = self._body
        assert body is not None
        if self._awaits_continue:  # it did not wait
            self._awaits_continue = False
            self._await_body()
        data = b""
        event = self._decoder.next_data()
        if isinstance(event, bytes):
            data = event
            event = self._decoder.next_data()
        if isinstance(event, BadMessage):
            self._give_up(BodyUnreadable(event.message))
            return
        if event is not None:
            self._body = None
            self._deadline.clear()
        if data:
            body.arrived(data)
        if event is not None:
            body.completed()
        self._regulate()

    def _give_up(self, error: ProxyError) -> None:
        """The body will not be whole, or its end cannot be told from what follows: this request is the last."""
        body, request = self._body, self._request
        self._body = None
        self._discarding = True
        self.persistent = False
        self._deadline.clear()
        if body is not None:
            body.failed(error)
        if request is not None and request.begun:
            request.abort()

    def _starved(self) -> None:
        """The system has no memory for what came (C{ulimit -v}): let go of it, and say so."""
        error = BuffersFull(retry_after=RETRY_AFTER_SECONDS)
        if self._context.buffers is not None:
            self._context.buffers.starved()
        if self._body is not None:
            self._give_up(error)
        elif self._request is None and self._state not in OVER:
            self._refuse(error.status, error.code, error.message)
        else:
            self._discarding, self.persistent = True, False
            self._decoder.discard()

    def _on_space(self) -> None:
        """Somebody takes the body, or takes more of it."""
        if self._state in OVER or self._body is None:
            return
        if self._awaits_continue:
            self._awaits_continue = False
            if self._request is not None and not self._request.begun:
                self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._await_body()
        self._regulate()

    def _regulate(self) -> None:
        """Read, or do not."""
        full = len(self._decoder.buffer) > MAX_PIPELINED_BYTES or (self._body is not None and self._body.full)
        if full == self._reading_paused or self._state in OVER or self._half_closed:
            return
        self._reading_paused = full
        if full:
            if self._body is not None:
                self._deadline.clear()
            self.transport.pauseProducing()
            self._watch_peer()
        else:
            self.transport.resumeProducing()
            self._await_body()

    # Time

    def _wait(self, state: ChannelState, seconds: float) -> None:
        self._state = state
        self._set_deadline(seconds)

    def _set_deadline(self, seconds: float) -> None:
        if seconds:
            self._deadline.set(seconds)
        else:
            self._deadline.clear()

    def _await_body(self) -> None:
        if self._body is not None and not self._awaits_continue and not self._reading_paused:
            self._progress = self._body.count
            self._set_deadline(self._context.limits.body_timeout)

    def _too_slow(self) -> None:
        """What waits for the client is hardly taken: it holds the connection, and the provider's with it."""
        if self._request is not None:
            self._request.stalled = True
        self._leave()

    def _expired(self) -> None:
        if self._state in OVER:
            if self._extends_flush and self._writer.guard.goes_on():
                self._set_deadline(CLOSE_TIMEOUT_SECONDS)
            else:
                self.transport.abortConnection()
        elif self._body is not None:
            if self._body.count - self._progress >= MIN_PROGRESS_BYTES:
                self._await_body()
            else:
                self._give_up(BodyTimeout())
        elif self._decoder.partial:
            self._refuse(408, "request_timeout", "The head of the request did not arrive in time.")
        else:
            self._close()

    # A client that may have left

    def _probe(self, request: ChannelRequest) -> bool:
        """Write what a client that listens ignores, and what makes one that has left say so."""
        if not request.begun and request.minor:
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return True
        if request.begun and request.chunked:
            self.write(b"0")  # the next chunk's size now has a leading zero
            return True
        return self._writer.blocked  # it has still to take what is written

    def _watch_peer(self, seconds: float = PEER_CHECK_SECONDS) -> None:
        self._watch = watch = self._watch or Deadline(self._context.deadlines, self._look)
        watch.set(seconds)

    def _look(self) -> None:
        if self._state in OVER or not (self._reading_paused or self._half_closed):
            return
        probed = self._half_closed or self._end_seen
        if not self._context.peer_closed(self.transport, half=not probed):
            self._watch_peer()
        elif probed or self._context.peer_closed(self.transport, half=False):
            self._leave()
        else:  # its end stands behind what was not read yet
            self._end_seen = True
            self._find_out(self._request is None or self._probe(self._request))

    def _find_out(self, probed: bool) -> None:
        self._watch_peer(PROBE_CHECK_SECONDS) if probed else self._leave()

    def _leave(self) -> None:
        """The client has left: whoever works for it is told now."""
        self._writer.drop()
        request = self._detach()
        self._state = CLOSED
        self.transport.abortConnection()
        if request is not None:
            request.connectionLost(Failure(ConnectionLost()))

    # The end

    def _detach(self) -> ChannelRequest | None:
        request = self._request
        if request is not None:
            request.upload.release()
        self._request = self._producer = self._body = None
        return request

    def _close(self, seconds: float = CLOSE_TIMEOUT_SECONDS) -> None:
        """No more of either: what is written is sent, then the connection ends."""
        if self._state is CLOSED:
            return
        self._shut(FLUSHING, seconds)
        self._extends_flush = seconds == CLOSE_TIMEOUT_SECONDS
        self._writer.watch_flush()
        self.transport.loseConnection()

    def _linger(self) -> None:
        """Say that no more will be sent, and let what still comes run off: a reset could overtake the response."""
        if self._half_closed or self._state is CLOSED:
            self._close()
            return
        self._shut(LINGERING, LINGER_TIMEOUT_SECONDS)
        if self._reading_paused:
            self._reading_paused = False
            self.transport.resumeProducing()
        if not self.isSecure():  # TLS has no half-closed state here; there the client's own end is waited for
            self.transport.loseWriteConnection()

    def _shut(self, state: ChannelState, seconds: float) -> None:
        self._writer.leave()
        self._state = state
        self._body = None
        self._decoder.discard()
        self._writer.stop()
        self.transport.unregisterProducer()
        self._set_deadline(seconds)
