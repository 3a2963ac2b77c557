"""A request as C{twisted.web} resources know it, and the raw lines and the streams that the proxy works on."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted.internet.error import ConnectionAborted
from twisted.python.failure import Failure
from twisted.web import http, server
from twisted.web.error import UnsupportedMethod
from twisted.web.resource import _IEncodingResource
from twisted.web.server import NOT_DONE_YET

from llmproxy.errors import ClientGone, InternalError, MethodNotAllowed, ProxyError
from llmproxy.http import error_body
from llmproxy.wire.body_framing import LAST_CHUNK, chunk
from llmproxy.wire.parser import RequestHead
from llmproxy.wire.server.pull_producer import PullToPush
from llmproxy.wire.server.request_attributes import RequestAttributes
from llmproxy.wire.server.request_body import RequestBody

# How the end of a response's body is told.
_NOT_BEGUN, _CHUNKS, _LENGTH, _CLOSE, _NO_BODY = range(5)

_FRAMING_FIELDS = (b"content-length", b"transfer-encoding", b"connection")
_JOINED = 4096  # up to so many bytes, copying a piece into its chunk is cheaper than writing three pieces


class RequestChannel(Protocol):
    """What L{Request} needs of its connection.

    @ivar persistent: Whether another request may follow.
    @ivar remote: The address of the peer.
    """

    site: server.Site
    remote: str
    persistent: bool

    def write(self, data: bytes) -> None: ...

    def write_soon(self, data: bytes) -> None: ...

    def write_final(self, data: bytes, *, always_wait: bool) -> None: ...

    def registerProducer(self, producer: Any, streaming: bool) -> None: ...

    def unregisterProducer(self) -> None: ...

    def request_done(self) -> None:
        """The response is complete."""

    def cut(self, *, visible: bool) -> None:
        """End the connection in the middle of a response."""


class Request(RequestAttributes):
    """A request; what a plain relay does not need of it is made on first use.

    @ivar lines: The raw field lines.
    @ivar minor: 1 for HTTP/1.1, 0 for HTTP/1.0.
    @ivar upload: The body.
    @ivar remote: The address of the peer.
    @ivar gone: Whether the client has left (or was cut off), so that nothing can be written.
    @ivar booked_first: Whether what it cost is to be in the books before the end of its response leaves.
    @ivar paced: Whether a client that takes too little of what waits for it is cut off without anybody's doing.
    @ivar stalled: Whether that has happened.
    @ivar begun: Whether the head of the response is out.
    @ivar known_head: What the server's C{known_heads} have of its head; C{None} where that is new.
    @ivar on_gone: Called when the client leaves before its response is complete; costs less than C{notifyFinish}.
    """

    queued = booked_first = stalled = False
    _encoder: Any = None
    _framing = _NOT_BEGUN
    _left = 0
    _waiting = b""
    paced = True
    on_gone: Callable[[], object] | None = None
    _push: Any = None

    def __init__(self, channel: RequestChannel, head: RequestHead, upload: RequestBody) -> None:
        # Not the base's: it makes what is made on first use here.
        self.channel: Any = channel
        self.site = channel.site
        self.remote = channel.remote
        self.method, self.minor, self.lines, self.known_head = head.method, head.minor, head.lines, head.known
        self.uri = uri = head.target
        self.path = uri.partition(b"?")[0]
        self.upload = upload
        self.gone = self.begun = False

    # The response, as the proxy gives it

    def begin(self, code: int, phrase: bytes, lines: Sequence[bytes], length: int | None, hold: bool = False) -> None:
        """Write the head of the response.

        @param hold: Leave it for the first bytes of the body to take along; C{flush} sends it if there are none yet.
        @param lines: Its field lines, without those that frame the message or speak of the connection.
        @param length: Bytes of the body; C{None} where it ends when it ends.
        """
        if self.gone:
            return
        if self.begun or self.finished:
            raise RuntimeError("An answer begins once.")
        head = self._head(code, phrase, lines, length)
        if hold:
            self._waiting = head
        else:
            self.channel.write(head)

    def respond(self, code: int, phrase: bytes, lines: Sequence[bytes], length: int | None, body: bytes) -> None:
        """As L{begin}, C{body}, all that there is of it, and L{finish}."""
        if self.gone:
            return
        if self.begun or self.finished:
            raise RuntimeError("An answer begins once.")
        self._waiting = self._head(code, phrase, lines, length)
        self.finish(body)

    def flush(self) -> None:
        """Send the head that C{begin} was told to hold, if it has not left."""
        waiting, self._waiting = self._waiting, b""
        if waiting and not self.gone:
            self.channel.write(waiting)

    def write(self, data: bytes) -> None:
        if self.finished:
            raise RuntimeError("Request.write called on a request after Request.finish was called.")
        if self.gone:
            return
        if self._encoder is not None and not self._inFakeHead:
            data = self._encoder.encode(data)
        if self.begun:
            head, self._waiting = self._waiting, b""
            self._send(data, head)
        elif not self._inFakeHead:
            self._begin_plainly(data)

    def write_chunk(self, framed: bytes) -> bool:
        """As C{write} of L{ChunkPassing<llmproxy.wire.chunk_passing.ChunkPassing>}."""
        if self._framing != _CHUNKS or self._encoder is not None or self._waiting or self.gone or self.finished:
            return False
        self.sentLength += len(framed) - framed.index(b"\n") - 3
        self.channel.write_soon(framed)
        return True

    def finish(self, last: bytes = b"") -> None:
        """End the response, with these bytes of its body where there are any."""
        if self.gone:
            raise RuntimeError(
                "Request.finish called on a request after its connection was lost; "
                "use Request.notifyFinish to keep track of this."
            )
        if self.finished:
            warnings.warn("Warning! request.finish called twice.", stacklevel=2)
            return
        if self._encoder is not None or not self.begun:
            self.write(last)
            last = b""
            if self._encoder is not None:
                encoder, self._encoder = self._encoder, None
                self.write(encoder.finish())
        end, self._waiting = self._waiting, b""
        if self._framing == _CHUNKS:
            end = b"%b%b%b" % (end, chunk(last), LAST_CHUNK) if last else end + LAST_CHUNK
        elif self._framing == _NO_BODY:
            last = b""
        elif last:
            self._count(len(last), end)
            end += last
        if self._framing == _LENGTH and self._left:
            self.channel.persistent = False  # shorter than announced: the end of the connection shows it
        self.sentLength += len(last)
        if end:
            self.channel.write_final(end, always_wait=self.booked_first)
        self._end()

    def abort(self) -> None:
        """Cut the response off where it is, so that the client can tell; nothing where it has left or has all of it."""
        if self.gone or self.finished:
            return
        self.flush()
        channel = self.channel
        self.gone = True
        channel.cut(visible=self._framing in (_CHUNKS, _LENGTH))
        self.connectionLost(Failure(ConnectionAborted()))

    # Backpressure: the client's reading moves the producer

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if self.gone:
            producer.stopProducing()
            return
        if self.producer:
            raise ValueError(f"registering producer {producer} before previous one ({self.producer}) was unregistered")
        self.producer = producer
        self.streamingProducer = streaming
        self._push = producer if streaming else PullToPush(producer, self.channel.site.reactor)
        self.channel.registerProducer(self._push, True)

    def unregisterProducer(self) -> None:
        push, self._push, self.producer = self._push, None, None
        if isinstance(push, PullToPush):
            push.pauseProducing()
        if self.channel is not None:
            self.channel.unregisterProducer()

    # What the channel says

    def start(self, resource: Any) -> None:
        """Let C{resource} answer."""
        try:
            if not getattr(resource, "starts_on_head", False) and _IEncodingResource.providedBy(resource):
                self._encoder = resource.getEncoder(self)
            self.render(resource)
        except Exception:
            self.processingFailed(Failure())

    def render(self, resrc: Any) -> None:
        try:
            body = resrc.render(self)
        except UnsupportedMethod as e:
            if self.method == b"HEAD" and b"GET" in e.allowedMethods:
                super().render(resrc)  # type: ignore[no-untyped-call]
                return
            allow = b", ".join(sorted(e.allowedMethods)).decode("ascii")
            self._answer(MethodNotAllowed(headers={"Allow": allow}), b"Method Not Allowed")
            return
        if body is NOT_DONE_YET:
            return
        if not isinstance(body, bytes):
            raise TypeError(f"A resource returned {type(body).__name__}, not bytes.")
        if body or self.method != b"HEAD":  # a resource may know how long the body is that HEAD leaves out
            self.responseHeaders.setRawHeaders(b"Content-Length", [b"%d" % len(body)])
        self.write(body)
        self.finish()

    def connectionLost(self, reason: Failure) -> None:
        self.gone = self._disconnected = True
        push, self._push, self.producer, self.channel = self._push, None, None, None
        if push is not None:
            push.stopProducing()
        self.upload.failed(ClientGone())
        self.upload.release()  # it may have been counted when its connection knew of no request any more
        if self.on_gone is not None:
            self.on_gone()
        self._tell(lambda d: d.errback(reason))

    def processingFailed(self, reason: Failure) -> Failure:
        """What a resource did not expect is logged with its traceback, and told without any."""
        error = reason.value
        if isinstance(error, ProxyError) and not (self.gone or self.finished or self.begun):
            self._answer(error, http.RESPONSES.get(error.status, b"Error"))
            return reason
        self._log.failure("A resource failed.", failure=reason)
        if self.gone or self.finished:
            return reason
        if self.begun:
            self.abort()
            return reason
        self._answer(InternalError(), b"Internal Server Error")
        return reason

    def _answer(self, error: ProxyError, phrase: bytes) -> None:
        self._encoder = None
        self._inFakeHead = False
        lines, body = error_body.render(error, "hybrid", "")
        self.begin(error.status, phrase, [*lines, b"Date: " + http.datetimeToString()], len(body))
        self._send(body)
        self.finish()

    # Before any response

    def _default_type(self) -> None:
        headers = self.responseHeaders
        empty = headers.getRawHeaders(b"Content-Length", [b""])[0] == b"0"
        if (
            self.defaultContentType is not None
            and self.code not in (204, 304)
            and not empty
            and not headers.hasHeader(b"Content-Type")
        ):
            headers.setRawHeaders(b"Content-Type", [self.defaultContentType])

    def _begin_plainly(self, data: bytes) -> None:
        """Begin with what a resource has left in C{code} and C{responseHeaders}."""
        self._default_type()
        headers = self.responseHeaders
        if self.lastModified is not None and not headers.hasHeader(b"Last-Modified"):
            headers.setRawHeaders(b"Last-Modified", [http.datetimeToString(self.lastModified)])
        if self.etag is not None:
            headers.setRawHeaders(b"ETag", [self.etag])
        for cookie in self.cookies:
            headers.addRawHeader(b"Set-Cookie", cookie)
        if not headers.hasHeader(b"Date"):
            headers.setRawHeaders(b"Date", [http.datetimeToString()])
        if any(b"close" in value.lower() for value in headers.getRawHeaders(b"Connection", [])):
            self.channel.persistent = False
        lengths = headers.getRawHeaders(b"Content-Length", [])
        length = int(lengths[0]) if len(lengths) == 1 and lengths[0].isdigit() else None
        lines = [
            name + b": " + value
            for name, values in headers.getAllRawHeaders()
            if name.lower() not in _FRAMING_FIELDS
            for value in values
        ]
        head = self._head(self.code, self.code_message, lines, length)
        self._send(data, head)

    def _head(self, code: int, phrase: bytes, lines: Sequence[bytes], length: int | None) -> bytes:
        channel = self.channel
        self.begun = True
        self.startedWriting = 1
        self.code, self.code_message = code, phrase
        out = [b"HTTP/1.1 %d %b" % (code, phrase), *lines]
        if code in (204, 304):
            self._framing = _NO_BODY
        elif self.method == b"HEAD":
            self._framing = _NO_BODY
            if length is not None:
                out.append(b"Content-Length: %d" % length)
        elif length is not None:
            self._framing = _LENGTH
            self._left = length
            out.append(b"Content-Length: %d" % length)
        elif self.minor:
            self._framing = _CHUNKS
            self.chunked = 1
            out.append(b"Transfer-Encoding: chunked")
        else:
            self._framing = _CLOSE
            channel.persistent = False
        if not self.upload.done:
            channel.persistent = False  # the rest of the body need not be waited for
        if not channel.persistent:
            out.append(b"Connection: close")
        elif not self.minor:
            out.append(b"Connection: keep-alive")
        out.append(b"\r\n")
        return b"\r\n".join(out)

    # The response's bytes

    def _send(self, data: bytes, head: bytes = b"") -> None:
        framing = self._framing
        size = len(data)
        if framing == _NO_BODY:
            data = b""
        elif framing == _CHUNKS and size:
            self.sentLength += size
            if size > _JOINED:
                self.channel.write(b"".join((b"%b%x\r\n" % (head, size), data, b"\r\n")))
                return
            data = b"%x\r\n%b\r\n" % (size, data)
        elif size:
            self._count(size, head)
            self.sentLength += size
        if head or data:
            self.channel.write(head + data if head and data else head or data)

    def _count(self, size: int, head: bytes) -> None:
        """So many bytes of the body are to be sent, behind this head if that has not been: no more than was said."""
        if self._framing == _LENGTH:
            if size > self._left:
                if head:
                    self.channel.write(head)
                self.abort()
                raise RuntimeError("The answer is longer than its Content-Length.")
            self._left -= size

    def _end(self) -> None:
        channel = self.channel
        if self.producer:
            self._log.error("Producer was not unregistered for {uri}", uri=self.uri)
            self.unregisterProducer()
        self.finished = 1
        self.channel = None
        channel.request_done()
        self._tell(lambda d: d.callback(None))

    def _tell(self, fire: Callable[[Any], None]) -> None:
        content = self.__dict__.pop("content", None)
        if content is not None:
            content.close()
        for d in self.__dict__.pop("notifications", ()):
            fire(d)
