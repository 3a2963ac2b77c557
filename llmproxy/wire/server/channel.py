"""One client's connection: requests in, answers out, in order, with bounded buffers and an end to every wait."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

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
from llmproxy.wire import socket_state as peer
from llmproxy.wire.body_framing import ChunkedBody
from llmproxy.wire.buffers import RETRY_AFTER_SECONDS
from llmproxy.wire.deadline import Deadline
from llmproxy.wire.parser import CHUNKED, BadMessage, HeadReader, RequestHead, request_head
from llmproxy.wire.server.error_response import refusal
from llmproxy.wire.server.request import Request
from llmproxy.wire.server.request_body import RequestBody
from llmproxy.wire.server.slow_reader import SlowReaderGuard

if TYPE_CHECKING:
    from llmproxy.wire.server.site import Site

MAX_PIPELINED_BYTES = 64 * 1024  # bytes of later requests that are kept while one is being answered
READ_AHEAD_BYTES = 64 * 1024  # that wait for a client before its provider is made to wait
TIGHT_READ_AHEAD_BYTES = 4096  # likewise where memory is tight; a transport reads as many at a time, so never none
TURN_SECONDS = 0.005  # that one client's requests may take in one turn of the reactor
MAX_COLLECTED_BYTES = 1024 * 1024  # bytes of a body that are read for a resource that wants it whole
MIN_PROGRESS_BYTES = 1024  # bytes of a body that must arrive within every body timeout
CLOSE_TIMEOUT_SECONDS = 60.0  # seconds for what is written to be read, before the connection is torn down
ABORT_TIMEOUT_SECONDS = 5.0  # likewise where the answer was cut
LINGER_TIMEOUT_SECONDS = 10.0  # seconds for a client to see an answer that came before it had sent everything
PEER_CHECK_SECONDS = 0.1  # seconds between looks at a peer that cannot be read from
PROBE_CHECK_SECONDS = 0.02  # seconds for what was written to such a peer to come back as a reset

# What is waited for.
_HEAD, _IDLE, _BODY, _END = range(4)


@implementer(IPushProducer, IHalfCloseableProtocol)
class Channel(Protocol):
    """The server's side of a connection.

    Reading goes on while an answer is prepared, within bounds, so that a client that leaves is noticed at once.

    @ivar persistent: Whether another request may follow the present one.
    @ivar remote: The address of the peer.
    """

    transport: Any

    def __init__(self, site: Site, remote: str) -> None:
        self.site = self.factory = site
        self.remote = remote
        self.persistent = True
        self._reader = HeadReader(site.limits, skip_empty_line=True)
        self._deadline = Deadline(site.reactor, self._expired)
        self._awaited = _HEAD
        self._request: Request | None = None
        self._producer: Any = None
        self._buffer = b""  # what came after the present request
        self._parting = b""  # what leaves at the end of the turn
        self._upload: RequestBody | None = None  # the body that is arriving
        self._chunks: ChunkedBody | None = None
        self._left = 0
        self._progress = 0
        self._continue = False  # the client waits for our word before it sends its body
        self._junk = False  # the rest of the body is of no use
        self._used = False
        self._working = False
        self._later: IDelayedCall | None = None  # goes on with the requests that this turn had no time for
        self._blocked = False  # the client does not read
        self._taking: SlowReaderGuard | None = None  # how fast it does, once it has been too slow for us
        self._held = False  # we do not read
        self._ended = False  # the client has said that it will send no more
        self._closing = False
        self._finishing = False  # all that is left to do is to send what was written
        self._buffered = 0  # bytes that were written and wait here for the client, as they are counted
        self._watch: IDelayedCall | None = None
        self._socket: socket.socket | None = None

    # What the transport says

    def connectionMade(self) -> None:
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
        handle = self.transport.getHandle() if hasattr(self.transport, "getHandle") else None
        if isinstance(handle, socket.socket) and hasattr(self.transport, "_tempDataLen"):
            self._socket = handle
        self.transport.registerProducer(self, True)
        self.site.opened(self)
        descriptors = self.site.descriptors
        own = None if self._socket is None else self._socket.fileno()
        if descriptors is not None and not descriptors.taken_by_client(own):
            self.site.on_refused(503, "descriptors_exhausted", self.remote, "")
            self._leave()
            return
        self._wait(_HEAD, self.site.head_timeout)

    def dataReceived(self, data: bytes) -> None:
        try:
            self._take(data)
        except MemoryError:
            self._starved()

    def _take(self, data: bytes) -> None:
        if self._upload is not None:
            self._body(data)
        elif not self._closing and not self._junk:
            self._buffer = self._buffer + data if self._buffer else data
            if self._request is not None:
                self._regulate()
                return
        self._proceed()

    def readConnectionLost(self) -> None:
        """The client will send no more. Whether it still listens is found out by writing what it may ignore."""
        self._ended = True
        request = self._request
        if self._closing:
            self.transport.loseConnection()
        elif request is None:
            if self._later is None:
                self._close()
        elif self._upload is not None or not self._probe(request):
            self._leave()
        else:
            self._watch_peer(PROBE_CHECK_SECONDS)

    def writeConnectionLost(self) -> None:
        """We said that we will send no more."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._closing = True
        self._parting = b""
        self._deadline.stop()
        self._stop_watching()
        if self._taking is not None:
            self._taking.stop()
        self.site.closed(self)
        self._count(0)
        request = self._detach()
        if request is not None:
            request.connectionLost(reason)

    def pauseProducing(self) -> None:
        self._blocked = True
        self._takes().begin()
        if self._producer is not None:
            self._producer.pauseProducing()

    def resumeProducing(self) -> None:
        self._blocked = False
        self._takes().end()
        if self._buffered:
            self.count_buffered()
        if self._producer is not None:
            self._producer.resumeProducing()
        self._proceed()

    def stopProducing(self) -> None:
        """The connection is lost; C{connectionLost} sees to the rest."""

    # What a request says

    def write(self, *pieces: bytes) -> None:
        """Send at once where nothing waits to be sent; that spares a turn of the reactor and two system calls.

        Without any pieces, send what was left for the end of the turn.

        The transport keeps what it could not send, and finds out by itself what is wrong with a connection.
        """
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if self._parting:
            data, self._parting = self._parting + data, b""
        transport = self.transport
        if self._socket is not None and not transport.dataBuffer and not transport._tempDataLen:
            try:
                sent = self._socket.send(data)
            except OSError:
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
        if self._taking is not None:
            self._taking.added(len(data))
        buffers = self.site.buffers
        if buffers is None:
            transport.write(data)
            return
        if self._socket is not None:
            transport.bufferSize = TIGHT_READ_AHEAD_BYTES if buffers.tight else READ_AHEAD_BYTES
        transport.write(data)
        self.count_buffered()

    def count_buffered(self) -> None:
        """Count what waits here for the client."""
        self._count(peer.buffered(self.transport))

    def _count(self, unacknowledged_bytes: int) -> None:
        buffers, before = self.site.buffers, self._buffered
        if buffers is None or (not unacknowledged_bytes and not before):
            return
        self._buffered = unacknowledged_bytes
        buffers.hold(unacknowledged_bytes - before)
        if not unacknowledged_bytes:
            self.site.behind.discard(self)
        elif not before:
            self.site.fell_behind(self)

    def write_final(self, data: bytes) -> None:
        """As L{write}, for an answer that is complete with it: under load it leaves with others at the turn's end."""
        coalescer = self.site.coalescer
        if coalescer is None or self._socket is None:
            self.write(data)
            return
        self._parting += data  # first: one too many makes all leave that wait, itself among them
        if not coalescer.wait(self._part, self._request is not None and self._request.booked_first):
            self._part()

    def _part(self) -> None:
        if self._parting:
            self.write()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self._producer = producer
        if self._blocked:
            producer.pauseProducing()

    def unregisterProducer(self) -> None:
        self._producer = None

    def request_done(self) -> None:
        """The answer is out: on to the next request, or to the end."""
        if self._request is not None:
            self._request.upload.release()
        self._request = self._producer = None
        if self._closing:
            return
        if self._upload is not None:
            self._upload.failed(ClientGone())  # whoever still waits for the rest of the body
            self._linger()
        elif self._junk:
            self._linger()
        elif not self.persistent:
            self._close()
        else:
            self._wait(_IDLE, self.site.keepalive_timeout)
            self._proceed()

    def cut(self, *, visible: bool) -> None:
        """End it in the middle of an answer.

        @param visible: Whether the end of the connection alone tells that it is the middle; otherwise it is reset.
        """
        self._detach()
        self._part()
        if visible:
            self._close(ABORT_TIMEOUT_SECONDS)
        else:
            self._closing = True
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

    def drain(self) -> None:
        """Let the present request be the last; close now if there is none."""
        self.persistent = False
        if self._used and self._request is None and not self._reader.partial:
            self._close()

    def close_idle(self) -> None:
        """Close it if a request has been answered and none is under way, as a client must expect at any time."""
        if self._used and self._request is None and not self._closing and not self._reader.partial and not self._buffer:
            self._close()

    # Heads

    def _proceed(self) -> None:
        """Take requests as long as there are any and nobody is in the way; a loop, for answers may come at once."""
        if self._working:
            return
        if self._later is not None:
            self._regulate()
            return
        self._working = True
        seconds = self.site.reactor.seconds
        end = seconds() + TURN_SECONDS
        try:
            while self._buffer and self._request is None and not self._blocked and not self._closing:
                if seconds() > end:
                    self._later = self.site.reactor.callLater(0, self._go_on)
                    break
                data, self._buffer = self._buffer, b""
                self._head(data)
        finally:
            self._working = False
        if self._closing:
            return
        self._regulate()
        if self._ended and self._request is None and self._later is None:
            self._close()

    def _go_on(self) -> None:
        self._later = None
        if not self._closing:
            self._proceed()

    def _head(self, data: bytes) -> None:
        try:
            found = self._reader.feed(data)
            if found is None:
                if self._awaited != _HEAD:
                    self._wait(_HEAD, self.site.head_timeout)
                return
            head = request_head(found[0], self.site.limits)
        except BadMessage as bad:
            self._refuse(bad.status, bad.code, bad.message)
            return
        self._accept(head, found[1])

    def _accept(self, head: RequestHead, rest: bytes) -> None:
        self._used = True
        self._awaited = _IDLE
        self._deadline.clear()
        self.persistent = head.keep_alive and not self.site.draining
        length, limit = head.length, self.site.limits.body
        if 0 <= length <= len(rest) and length <= limit:
            self._buffer = rest[length:]
            self._request = request = Request(self, head, RequestBody.of(rest[:length], limit, self.site.buffers))
        else:
            upload = RequestBody(UNKNOWN_LENGTH if length == CHUNKED else length, limit, self._room, self.site.buffers)
            self._request = request = Request(self, head, upload)
            self._upload = upload
            self._chunks = ChunkedBody(self.site.limits) if length == CHUNKED else None
            self._left = length
            self._continue = head.expect_continue
            if rest:
                self._body(rest)
            self._await_body()
        self._dispatch(request)

    def _dispatch(self, request: Request) -> None:
        if request.path == b"*":
            request.begin(204, b"No Content", [self.site.allow, b"Date: " + datetimeToString()], None)
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
        request_id = self.site.fresh_id()
        self.site.on_refused(status, code, self.remote, request_id)
        self.write(refusal(status, code, message, request_id, self.site.allow))
        self._linger()

    # Bodies

    def _body(self, data: bytes) -> None:
        upload = self._upload
        assert upload is not None
        if self._continue:  # it did not wait
            self._continue = False
            self._await_body()
        if self._chunks is not None:
            try:
                pieces = self._chunks.feed(data)
            except BadMessage as bad:
                self._give_up(BodyUnreadable(bad.message))
                return
            done, rest = self._chunks.done, self._chunks.rest
            data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        else:
            data, rest = (data, b"") if len(data) <= self._left else (data[: self._left], data[self._left :])
            self._left -= len(data)
            done = not self._left
        if done:
            self._upload = self._chunks = None
            self._buffer = rest
            self._awaited = _IDLE
            self._deadline.clear()
        if data:
            upload.arrived(data)
        if done:
            upload.completed()
        self._regulate()

    def _give_up(self, error: ProxyError) -> None:
        """The body will not be whole, or its end cannot be told from what follows: this request is the last."""
        upload, request = self._upload, self._request
        self._upload = self._chunks = None
        self._junk = True
        self.persistent = False
        self._deadline.clear()
        if upload is not None:
            upload.failed(error)
        if request is not None and request.begun:
            request.abort()

    def _starved(self) -> None:
        """The system has no memory for what came (C{ulimit -v}): let go of it, and say so."""
        error = BuffersFull(retry_after=RETRY_AFTER_SECONDS)
        if self.site.buffers is not None:
            self.site.buffers.starved()
        if self._upload is not None:
            self._give_up(error)
        elif self._request is None and not self._closing:
            self._refuse(error.status, error.code, error.message)
        else:
            self._junk, self._buffer, self.persistent = True, b"", False

    def _room(self) -> None:
        """Somebody takes the body, or takes more of it."""
        if self._closing or self._upload is None:
            return
        if self._continue:
            self._continue = False
            if self._request is not None and not self._request.begun:
                self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._await_body()
        self._regulate()

    def _regulate(self) -> None:
        """Read, or do not."""
        full = len(self._buffer) > MAX_PIPELINED_BYTES or (self._upload is not None and self._upload.full)
        if full == self._held or self._closing:
            return
        self._held = full
        if full:
            if self._upload is not None:
                self._deadline.clear()
            self.transport.pauseProducing()
            self._watch_peer()
        else:
            self.transport.resumeProducing()
            self._await_body()

    # Time

    def _wait(self, awaited: int, seconds: float) -> None:
        self._awaited = awaited
        if seconds:
            self._deadline.set(seconds)
        else:
            self._deadline.clear()

    def _await_body(self) -> None:
        if self._upload is not None and not self._continue and not self._held:
            self._progress = self._upload.count
            self._wait(_BODY, self.site.body_timeout)

    def _takes(self) -> SlowReaderGuard:
        taking = self._taking
        if taking is None:
            site, transport = self.site, self.transport
            taking = self._taking = SlowReaderGuard(
                site.reactor,
                site.send_timeout,
                site.least,
                lambda: site.unacknowledged_bytes(transport),
                self._too_slow,
            )
        return taking

    def _too_slow(self) -> None:
        """What waits for the client is hardly taken: it holds the connection, and the provider's with it."""
        if self._request is not None:
            self._request.stalled = True
        self._leave()

    def _expired(self) -> None:
        if self._awaited == _END:
            if self._finishing and self._takes().goes_on():
                self._wait(_END, CLOSE_TIMEOUT_SECONDS)
            else:
                self.transport.abortConnection()
        elif self._awaited == _BODY and self._upload is not None:
            if self._upload.count - self._progress >= MIN_PROGRESS_BYTES:
                self._await_body()
            else:
                self._give_up(BodyTimeout())
        elif self._reader.partial:
            self._refuse(408, "request_timeout", "The head of the request did not arrive in time.")
        else:
            self._close()

    # A client that may have left

    def _probe(self, request: Request) -> bool:
        """Write what a client that listens ignores, and what makes one that has left say so."""
        if not request.begun and request.minor:
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return True
        if request.begun and request.chunked:
            self.write(b"0")  # the next chunk's size now has a leading zero
            return True
        return self._blocked  # it has still to take what is written

    def _watch_peer(self, seconds: float = PEER_CHECK_SECONDS) -> None:
        if self._watch is None:
            self._watch = self.site.reactor.callLater(seconds, self._look)

    def _look(self) -> None:
        self._watch = None
        if self._closing or not (self._held or self._ended):
            return
        if self.site.peer_closed(self.transport, half=not self._ended):
            self._leave()
        else:
            self._watch_peer()

    def _stop_watching(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def _leave(self) -> None:
        """The client has left: whoever works for it is told now."""
        self._parting = b""
        request = self._detach()
        self._closing = True
        self.transport.abortConnection()
        if request is not None:
            request.connectionLost(Failure(ConnectionLost()))

    # The end

    def _detach(self) -> Request | None:
        request = self._request
        if request is not None:
            request.upload.release()
        self._request = self._producer = self._upload = self._chunks = None
        return request

    def _close(self, seconds: float = CLOSE_TIMEOUT_SECONDS) -> None:
        """No more of either: what is written is sent, then the connection ends."""
        self._shut(seconds)
        self._finishing = seconds == CLOSE_TIMEOUT_SECONDS
        self._takes().goes_on()
        self.transport.loseConnection()

    def _linger(self) -> None:
        """Say that no more will be sent, and let what still comes run off: a reset could overtake the answer."""
        if self._ended:
            self._close()
            return
        self._shut(LINGER_TIMEOUT_SECONDS)
        if self._held:
            self._held = False
            self.transport.resumeProducing()
        if not self.isSecure():  # TLS has no half-closed state here; there the client's own end is waited for
            self.transport.loseWriteConnection()

    def _shut(self, seconds: float) -> None:
        self._part()
        self._closing = True
        self._upload = self._chunks = None
        self._buffer = b""
        self._stop_watching()
        if self._taking is not None:
            self._taking.stop()
        self.transport.unregisterProducer()
        self._wait(_END, seconds)
