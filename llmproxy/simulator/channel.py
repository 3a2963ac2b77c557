"""Twisted's HTTP server, made to show requests exactly as they came and to send responses exactly as they are meant."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from tempfile import SpooledTemporaryFile
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.python.failure import Failure
from twisted.web import http, server
from twisted.web.resource import IResource
from zope.interface import implementer

from llmproxy.simulator.journal import Entry, Journal
from llmproxy.simulator.steering import AT_UPLOAD, split

_IN_MEMORY = 1024 * 1024
_LINGER = 2.0
_NOT_RECORDED = (b"/-/requests", b"/-/stats", b"/-/invoice")


@implementer(IPushProducer)
class Valve:
    """Shut while the connection takes no more; whoever writes waits for it."""

    def __init__(self) -> None:
        self._opening: Deferred[None] | None = None

    async def open(self) -> None:
        """Wait until there is room."""
        if self._opening is not None:
            await self._opening

    def pauseProducing(self) -> None:
        if self._opening is None:
            self._opening = Deferred()

    def resumeProducing(self) -> None:
        opening, self._opening = self._opening, None
        if opening is not None:
            opening.callback(None)

    def stopProducing(self) -> None:
        """The client is gone: the request hears it by itself."""


class Request(server.Request):
    """A request with its raw C{lines}; its response is written raw too.

    @ivar entry: What the journal keeps of it; C{None} for a look at the journal itself.
    """

    channel: Channel
    entry: Entry | None = None
    lines: list[bytes]
    digest: str = ""
    size = 0
    gone = False

    def head_received(self, request_line: bytes, lines: list[bytes], number: int) -> None:
        self.lines = lines
        if request_line.partition(b" ")[2].split(b" ")[0].split(b"?")[0] not in _NOT_RECORDED:
            self.entry = self.channel.site.journal.open(number, request_line, lines)

    def gotLength(self, length: int | None) -> None:
        self.content: Any = SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 closed by Twisted, when the request is over

    def handleContentChunk(self, data: bytes) -> None:
        super().handleContentChunk(data)
        self.size += len(data)
        if self.entry is not None:
            self.entry.receive(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        if self.entry is not None:
            if not self.channel.early:
                self.entry.received()
            self.digest = self.entry.sha256
        super().requestReceived(command, path, version)

    def connectionLost(self, reason: Failure) -> None:
        self.gone = True
        if self.entry is not None and not self.entry.over:
            self.entry.left()
        super().connectionLost(reason)

    def begin(self, status: int) -> Valve:
        """Answer raw from here on, at the pace of the valve."""
        if self.entry is not None:
            self.entry.status = status
        self.startedWriting = 1
        valve = Valve()
        self.registerProducer(valve, True)
        return valve

    def send(self, data: bytes) -> None:
        """Write bytes as they are, at once and by themselves."""
        self.channel.transport.write(data)

    def sent(self, data: bytes) -> None:
        """Note an event of the response."""
        if self.entry is not None:
            self.entry.sent(data)

    def end(self) -> None:
        """The response is complete; the connection stays or goes as the request asked."""
        self.over()
        if self.producer is not None:
            self.unregisterProducer()
        self.finish()

    def over(self) -> None:
        """What follows is no longer the client leaving."""
        if self.entry is not None:
            self.entry.finished()

    def cut(self) -> None:
        """Close the connection behind what has been written."""
        self.over()
        self.channel.loseConnection()

    def reset(self) -> None:
        """Reset the connection."""
        self.over()
        self.channel.transport.abortConnection()


class Channel(http.HTTPChannel):
    """A connection that keeps the header lines as they came.

    @ivar doomed: Close as soon as the next request begins.
    @ivar early: The response has begun while the request's body is still on its way; what comes of it is thrown away.
    """

    totalHeadersSize = 1024 * 1024
    maxHeaders = 10_000
    site: Site
    transport: Any
    _networkProducer: Any
    requests: list[Request]
    doomed = False
    early = False
    _lingering = False

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[bytes] = []
        self._number = 0

    def connectionMade(self) -> None:
        self._number = self.site.journal.connected()
        super().connectionMade()

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008 Twisted's own signature
        self.site.journal.disconnected()
        super().connectionLost(reason)

    def dataReceived(self, data: bytes) -> None:
        if self._lingering:
            return
        if self.doomed:
            self.transport.loseConnection()
            return
        super().dataReceived(data)

    def lineReceived(self, line: bytes) -> None:
        if line or self._lines:
            self._lines.append(line)
        super().lineReceived(line)

    def allHeadersReceived(self) -> None:
        request_line, *lines = self._lines[:-1]
        self._lines = []
        self.requests[-1].head_received(request_line, lines, self._number)
        super().allHeadersReceived()
        fault = next((value for name, value in split(lines) if name == "x-sim-fault"), "")
        if fault in AT_UPLOAD:
            self._hold_upload(fault == "early")

    def rawDataReceived(self, data: bytes) -> None:
        if not self.early:
            super().rawDataReceived(data)

    def loseConnection(self) -> None:
        if not self.early:
            super().loseConnection()
            return
        # Closing while the client still writes would reset the connection and destroy the response on its way.
        self._lingering = True
        self.unregisterProducer()
        self._networkProducer.unregisterProducer()
        self._networkProducer.resumeProducing()
        self.transport.loseWriteConnection()
        self.callLater(_LINGER, self.transport.loseConnection)

    def _hold_upload(self, answer: bool) -> None:
        self._networkProducer.pauseProducing()
        if answer and self.length != 0:
            self.persistent = False
            self.callLater(0, self._answer_early)

    def _answer_early(self) -> None:
        if self.requests and not self._handlingRequest:
            self.early = True
            self._networkProducer.resumeProducing()
            self.allContentReceived()


class Site(server.Site):
    """Serves a resource over L{Channel}s, all requests into one journal."""

    protocol = Channel  # type: ignore[assignment]
    requestFactory = Request

    def __init__(self, resource: IResource, journal: Journal, reactor: IReactorTime) -> None:
        super().__init__(resource, timeout=300, reactor=reactor, parsePOSTFormSubmission=False)
        self.journal = journal

    def log(self, request: http.Request) -> None:
        """The journal says more than an access log would."""
