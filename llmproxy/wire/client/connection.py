"""One HTTP/1.1 connection to a provider: a request out, its response in, and again, as long as both ends agree.

The response is parsed with every leniency off: whatever is odd fails the request (or cuts the body) and the connection
with it. Plain callbacks and one Deferred for each request: this is the measured path.
"""

from __future__ import annotations

import select
import socket
from typing import Any

from twisted.internet import protocol
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, IHandshakeListener, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from llmproxy import errors
from llmproxy.wire import parser as http1
from llmproxy.wire.body_framing import ResponseBodyReader, UntilCloseBody, response_body_reader
from llmproxy.wire.client.connection_owner import ConnectionOwner
from llmproxy.wire.client.connection_state import ConnectionState
from llmproxy.wire.client.pending_request import PendingRequest
from llmproxy.wire.client.receipt import none_received
from llmproxy.wire.client.request_writer import MAX_JOINED_BYTES, RequestWriter
from llmproxy.wire.client.response import Response
from llmproxy.wire.client.response_heads import ResponseHeads, match_status_line
from llmproxy.wire.socket_state import before_close, tcp_transport
from llmproxy.wire.tls_transport import DirectTLS
from llmproxy.wire.write_coalescing import WriteCoalescer

MAX_INTERIM_RESPONSES = 16  # responses of the 1xx kind before the real one; more are a fault
CLOSE_TIMEOUT_SECONDS = 5.0  # seconds a connection that we close has to go away by itself

# By name: in Python 3.11 each look-up in the class itself would cost 0.2 µs.
_OPENING, _IDLE, _HEAD, _BODY, _CLOSED = ConnectionState


@implementer(IHandshakeListener)
class Connection(protocol.Protocol):
    """One connection, which carries one request at a time.

    @ivar opened: Fires with the connection when it can carry the first, after the TLS handshake where there is one.
    @ivar since: The clock's time when it was opened; C{good_until}: until when it may be used, once it is put aside,
        and C{idle_since}: since when it is.
    """

    transport: Any = None
    _request: PendingRequest | None = None
    _outgoing: RequestWriter | None = None
    _response: Response | None = None
    _socket: socket.socket | None = None
    _at_once = False  # whether what is written leaves in the same turn
    _poll: select.poll | None = None
    _body: ResponseBodyReader | None = None
    _closing: IDelayedCall | None = None
    _parting = b""
    _keep = _heard = _paused = False
    _matched = _interim = _used = 0
    good_until, idle_since = 0.0, -1.0

    def __init__(
        self,
        home: ConnectionOwner,
        clock: IReactorTime,
        limits: http1.MessageLimits,
        *,
        secure: bool,
        coalescer: WriteCoalescer | None = None,
        heads: ResponseHeads | None = None,
    ) -> None:
        """
        @param heads: What is known of the heads of this provider's responses.
        @param coalescer: Where whole requests wait for the end of the reactor's turn; without it they leave at once.
        """
        self._state = _OPENING  # not of the class: attributes with a value of such a type are looked for everywhere
        self._coalescer = coalescer
        self._home = home
        self._clock = clock
        self._limits = limits
        self._heads = heads or ResponseHeads(limits)
        self._secure = secure
        self._reader = http1.HeadReader(limits)
        self.since = clock.seconds()
        self.opened: Deferred[Connection] = Deferred(lambda _: self.cancel())

    # Opening and lending

    def connectionMade(self) -> None:
        transport = self.transport
        if hasattr(transport, "setTcpNoDelay"):
            transport.setTcpNoDelay(True)
        if hasattr(transport, "fileno"):
            self._poll = select.poll()
            self._poll.register(transport.fileno(), select.POLLIN)
        handle = transport.getHandle() if hasattr(transport, "getHandle") else None
        if isinstance(handle, socket.socket):
            self._socket = handle
            transport.protocol = self  # an endpoint puts a protocol of its own between, which has done its part by now
        self._at_once = self._socket is not None or isinstance(transport, DirectTLS)
        before_close(tcp_transport(transport), self._before_close)
        if not self._secure:
            self._open()

    def handshakeCompleted(self) -> None:
        self._open()

    def _open(self) -> None:
        if self._state is _OPENING:
            self._state = _IDLE
            self.opened.callback(self)

    def quiet(self) -> bool:
        """Whether nothing has come from the other end that was not read: neither bytes nor the end of them."""
        return self._state is _IDLE and (self._poll is None or not self._poll.poll(0))

    def send(self, request: PendingRequest) -> None:
        """Send the request; the response goes to whoever asked."""
        self._request = request
        request.holder = self
        self._state = _HEAD
        self._heard = False
        self._matched = self._interim = 0
        self._used += 1
        if request.body is None:
            self._write(request.head)
            return
        if request.whole is not None and len(request.whole) < MAX_JOINED_BYTES:
            self._parting = request.head + request.whole
            if not self._at_once or self._coalescer is None or not self._coalescer.wait(self._part):
                self._part()
            return
        if request.owner is not None:
            request.owner.leaving()
        outgoing = RequestWriter(request.head, request.body, self._write, self.transport, self._unsendable)
        if self._socket is not None and outgoing.send_at_once(self._socket):
            request.sent = True
            return
        self._outgoing = outgoing
        outgoing.start()
        request.started = outgoing.started

    def _part(self) -> None:
        """A whole request leaves."""
        data, self._parting = self._parting, b""
        self._write(data)

    def _write(self, data: bytes) -> bool:
        """Write at once where nothing waits to be written; so it is known whether anything has left.

        Say no where the connection turns out to be closed. What it holds to be read, such as a response that came
        before the other end closed, is still read.
        """
        request = self._request
        if self._state is _CLOSED or request is None:
            return False
        if request.owner is not None:
            request.owner.leaving()
        if self._socket is not None:
            try:
                count = self._socket.send(data)
            except BlockingIOError:
                count = 0
            except OSError:
                return False
            request.sent = True
            if count == len(data):
                return True
            # The transport has a queue from now on, and never tells when it is empty: all that follows goes through it.
            self._socket = None
            data = data[count:]
        request.sent = True
        self.transport.write(data)
        return True

    def _unsendable(self, reason: Failure) -> None:
        """The request's body cannot be sent to its end; only by closing can the provider be told."""
        request, self._request = self._request, None
        self.abort()
        if request is not None:
            request.fail(reason)

    # What comes in

    def dataReceived(self, data: bytes) -> None:
        state = self._state
        if state is _BODY:
            take = self._body.take  # type: ignore[union-attr]
            if take is None or not take(data):
                self._read_body(data)
        elif state is _HEAD:
            if not self._take_whole(data):
                self._read_head(data)
        elif state is _IDLE:
            self.abort()  # nobody asked anything

    def _take_whole(self, data: bytes) -> bool:
        """Pass on a response that is all in this read to a request that takes it so, or begin with one whose head is
        like others before; C{False}: nothing was done."""
        request, outgoing = self._request, self._outgoing
        assert request is not None
        owner = request.owner
        if owner is None or self._heard or not (outgoing is None or outgoing.finished):
            return False
        response = self._heads.whole(data)
        if response is None:
            begun = self._heads.beginning(data)
            if begun is not None:
                self._heard = True
                self._begin(*begun)
            return begun is not None
        accepts, complete = owner.accepts, owner.complete  # no methods, maybe
        if not accepts(request, response):
            return False
        self._request, self._state, self._heard = None, _IDLE, True
        if outgoing is not None:
            self._stop_sending()
        self._home.on_idle(self)
        request.holder = None
        complete(request)
        return True

    def _read_head(self, data: bytes) -> None:
        self._heard = True
        try:
            while True:
                self._matched = match_status_line(data, self._matched)
                found = self._reader.feed(data)
                if found is None:
                    return
                head, data = found
                parsed = self._heads.parse(head, self._request.method)  # type: ignore[union-attr]
                if parsed.code >= 200:
                    break
                self._pass_over(parsed.code)
                if not data:
                    return
        except http1.BadMessage as e:
            self._broken(e)
            return
        self._begin(parsed, data)

    def _pass_over(self, code: int) -> None:
        self._interim, self._matched = self._interim + 1, 0
        if code == 101:
            raise http1.BadMessage(400, "bad_request", "The provider changed protocols, which nobody asked for.")
        if self._interim > MAX_INTERIM_RESPONSES:
            raise http1.BadMessage(400, "bad_request", "The provider sends interim answers without end.")

    def _begin(self, head: http1.ResponseHead, data: bytes) -> None:
        request, self._request = self._request, None
        assert request is not None
        self._keep = head.keep_alive and (self._outgoing is None or self._outgoing.finished)
        self._stop_sending()
        response = self._response = Response(head, self, method=request.method, raw=request.raw)
        if head.length == 0:
            self._end(b"", data)
        else:
            self._state = _BODY
            response.reader = self._body = response_body_reader(head.length, self._limits)
            if data:
                self._read_body(data)
        request.succeed(response)
        if self._response is response and not (response.begun or response.gathers):
            self.pause()  # until somebody takes the body

    def _read_body(self, data: bytes) -> None:
        body = self._body
        assert body is not None
        pieces = body.feed(data)
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if body.done:
            self._end(data, body.rest)
            return
        if data:
            self._response.received(data)  # type: ignore[union-attr]
        if body.fault is not None:
            self._broken(body.fault)

    def _end(self, last: bytes, rest: bytes) -> None:
        """The response is complete. First the connection is given on, so that whoever gets these bytes may use it."""
        response, self._response, self._body = self._response, None, None
        assert response is not None
        if self._paused:
            self.resume()
        if self._keep and not rest:
            self._state = _IDLE
            self._home.on_idle(self)
        else:
            self.close()
        response.finished(last)

    def _broken(self, error: http1.BadMessage) -> None:
        request, response, self._request, self._response = self._request, self._response, None, None
        self.abort()
        if request is not None:
            broken = errors.UpstreamBroken()
            broken.__cause__ = error
            request.fail(broken)
        elif response is not None:
            response.failed(Failure(error))

    # How it ends

    def close(self) -> None:
        """Close it in good order, and by force where the other end does not play its part."""
        if self._leave() and self.transport is not None:
            self.transport.loseConnection()
            self._closing = self._clock.callLater(CLOSE_TIMEOUT_SECONDS, self.transport.abortConnection)

    def abort(self) -> None:
        """Close it at once."""
        if self._leave() and self.transport is not None:
            self.transport.abortConnection()

    def cancel(self) -> None:
        """The one who asked has left."""
        self._request = None
        self.abort()

    def _leave(self) -> bool:
        if self._state is _CLOSED:
            return False
        self._state = _CLOSED
        self._stop_sending()
        self._home.on_unusable(self)
        return True

    def _stop_sending(self) -> None:
        outgoing, self._outgoing = self._outgoing, None
        if outgoing is not None:
            outgoing.stop()

    def _before_close(self, reason: Failure) -> None:
        """The kernel can still be asked what the provider has got of the request under way."""
        request = self._request
        if request is not None and not self._heard and reason.check(ConnectionDone):
            outgoing, size = self._outgoing, len(request.head) + len(request.whole or b"")
            before = None if outgoing is None else outgoing.sent_before
            if none_received(self.transport, size, before, in_pieces=outgoing is not None):
                request.sent = False

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._state is _IDLE:
            self._home.on_given_up(self)
        in_body = self._state is _BODY
        self._state = _CLOSED
        request, response, self._request, self._response = self._request, self._response, None, None
        self._socket = self._poll = None
        if self._outgoing is not None:
            self._outgoing.stopProducing()
            self._outgoing = None
        if self._closing is not None and self._closing.active():
            self._closing.cancel()
        try:
            self._fail(request, response, reason, ends=in_body and isinstance(self._body, UntilCloseBody))
        finally:
            self._home.on_unusable(self)
            self._home.on_closed(self)

    def _fail(self, request: PendingRequest | None, response: Response | None, reason: Failure, *, ends: bool) -> None:
        if not self.opened.called:
            self.opened.errback(reason)
        elif request is not None:
            self._unanswered(request, reason)
        elif response is not None and ends and reason.check(ConnectionDone):
            response.finished()
        elif response is not None:
            response.failed(reason)

    def _unanswered(self, request: PendingRequest, reason: Failure) -> None:
        error: errors.UpstreamFailure
        if self._heard:
            error = errors.UpstreamBroken("The provider broke off before the end of its answer's head.")
        elif self._used > 1 and request.may_repeat():
            if not request.sent:
                self._home.on_given_up(self)
            request.repeat()
            self._home.repeat(request)
            return
        else:
            error = errors.UpstreamUnreachable("The provider closed the connection before it answered.")
            error.reused = self._used > 1
        error.__cause__ = reason.value
        request.fail(error)

    # What the one who takes the body calls

    def pause(self) -> None:
        if self._state is not _CLOSED:
            self._paused = True
            self.transport.pauseProducing()

    def resume(self) -> None:
        if self._paused and self._state is not _CLOSED:
            self._paused = False
            self.transport.resumeProducing()
