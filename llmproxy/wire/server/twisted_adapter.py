"""Any C{twisted.web} request, with what the proxy needs of one: for a L{twisted.web.server.Site} that is not ours.

Such a site reads a request's body whole before anybody sees it, and spells header names its own way; all else holds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.python.failure import Failure
from twisted.web.server import Request as TwistedRequest

from llmproxy.http.field_lines import FieldLines
from llmproxy.wire.server.request import Request
from llmproxy.wire.server.request_body import RequestBody


class TwistedRequestAdapter:
    """Stands in for a L{Request}; see there."""

    paced = False
    stalled = False
    known_head = None

    def __init__(self, request: TwistedRequest) -> None:
        self._request: Any = request
        self.method: bytes = request.method
        self.uri: bytes = request.uri
        self.minor = int(request.clientproto == b"HTTP/1.1")
        self.lines = FieldLines.of(
            name + b": " + value for name, values in request.requestHeaders.getAllRawHeaders() for value in values
        )
        self.remote = str(getattr(request.getClientAddress(), "host", "unix"))
        self.upload = _received(request)
        self.gone = False
        self.begun = False
        self.on_gone: Callable[[], object] | None = None
        request.notifyFinish().addErrback(self._left)

    def begin(self, code: int, phrase: bytes, lines: Sequence[bytes], length: int | None, hold: bool = False) -> None:
        request = self._request
        request.setResponseCode(code, phrase)
        for name in (b"Server", b"Date", b"Content-Type"):
            request.responseHeaders.removeHeader(name)
        request.defaultContentType = None
        for line in lines:
            name, _, value = line.partition(b":")
            request.responseHeaders.addRawHeader(name, value.strip(b" \t"))
        if length is not None and code not in (204, 304):
            request.responseHeaders.setRawHeaders(b"Content-Length", [b"%d" % length])
        self.begun = True
        if not hold:
            self.flush()

    def respond(self, code: int, phrase: bytes, lines: Sequence[bytes], length: int | None, body: bytes) -> None:
        self.begin(code, phrase, lines, length, hold=True)
        if not self.gone:
            self.write(body)
            self.finish()

    def flush(self) -> None:
        if self.begun and not self.gone and not self._request.finished:
            self._request.write(b"")

    @property
    def startedWriting(self) -> bool:
        return self.begun

    def write(self, data: bytes) -> None:
        if not self.gone:
            self._request.write(data)

    def write_chunk(self, framed: bytes) -> bool:
        """Twisted makes the chunks itself."""
        return False

    def finish(self) -> None:
        self._request.finish()

    def abort(self) -> None:
        if not self.gone and not self._request.finished:
            self.flush()
            self._request.channel.transport.abortConnection()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if self.gone:
            producer.stopProducing()
        else:
            self._request.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        if not self.gone:
            self._request.unregisterProducer()

    def _left(self, reason: Failure) -> None:
        self.gone = True
        if self.on_gone is not None:
            self.on_gone()


def adapt(request: Any) -> Any:
    """The request as the proxy needs it: itself where it is ours."""
    return request if isinstance(request, Request) else TwistedRequestAdapter(request)


def _received(request: TwistedRequest) -> RequestBody:
    assert request.content is not None
    body: bytes = request.content.read()
    upload = RequestBody(len(body), len(body), lambda: None)
    if body:
        upload.arrived(body)
        upload.completed()
    return upload
