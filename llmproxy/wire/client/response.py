"""A provider's response: its head, and its body for whoever takes it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from twisted.internet.interfaces import IProtocol, IPushProducer
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone, ResponseFailed
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IResponse
from zope.interface import implementer

from llmproxy.wire.body_framing import ChunkedBody, ResponseBodyReader, TakeChunks
from llmproxy.wire.client.raw_headers import RawHeaders, parsed
from llmproxy.wire.parser import ResponseHead

_DONE = Failure._withoutTraceback(ResponseDone("The body is complete."))  # one for all: it says nothing of any of them


class BodySource(Protocol):
    """The connection a body comes from."""

    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def abort(self) -> None: ...


@implementer(IResponse, IPushProducer)
class Response:
    """As L{IResponse}; the protocol given to C{deliverBody} finds, as its transport, an L{IPushProducer}.

    The protocol's C{connectionLost} gets L{ResponseDone} where the body is complete, and L{ResponseFailed} where the
    provider broke off or the body was not well-formed.

    @ivar lines: The field lines as they came, those that frame the message included.
    @ivar length: Bytes of the body, or C{UNKNOWN_LENGTH}; for HEAD and 304 what C{Content-Length} says of the body that
        was left out.
    @ivar queue_time: Seconds for which its request waited for a connection, all of them being busy.
    @ivar reader: What takes its body out of what the connection reads.
    @ivar tap: Is shown every chunk of the body (L{watch}).
    @ivar begun: Whether somebody takes the body.
    @ivar gathers: Whether it comes before anybody takes it (L{gather}).
    @ivar came_at: When its head came, by the clock; C{0.0} where that is a moment ago.
    @ivar reads: What has come of the body, as it came, as long as nobody takes it; C{waiting_bytes}: how much that is.
    @ivar held: Whether the one who does has asked for a pause; C{waits}: whether one who watches has (L{wait}).
    """

    request = None
    reader: ResponseBodyReader | None = None
    previousResponse: IResponse | None = None
    begun = gathers = False
    queue_time = came_at = 0.0
    held = False
    waits = False

    _source: BodySource | None
    _protocol: IProtocol | None = None
    _headers: Headers | None = None
    _end: Failure | None = None
    tap: Callable[[bytes], object] | None = None

    def __init__(self, head: ResponseHead, source: BodySource, *, method: bytes, raw: bool) -> None:
        """
        @param raw: Whether C{headers} are to be L{RawHeaders}.
        """
        self.code = head.code
        self.phrase = head.phrase
        self.lines = head.lines
        self.version = (b"HTTP", 1, head.minor)
        if method == b"HEAD" or head.code == 304:
            self.length: int | str = _stated_length(head.lines)
        else:
            self.length = head.length if head.length >= 0 else UNKNOWN_LENGTH
        self._source = source
        self._raw = raw
        self.reads: list[bytes] = []
        self.waiting_bytes = 0
        self._gathered: Callable[[int], object] = bool

    @property
    def headers(self) -> Headers:
        if self._headers is None:
            self._headers = RawHeaders(self.lines) if self._raw else parsed(self.lines)
        return self._headers

    def setPreviousResponse(self, response: IResponse) -> None:
        self.previousResponse = response

    @property
    def whole(self) -> bytes | None:
        """The body, where all of it is there and nobody has taken it; C{None} where it must be delivered."""
        return b"".join(self.reads) if self._end is _DONE and not self.begun else None

    def watch(self, tap: Callable[[bytes], object]) -> None:
        """Show every chunk of the body to C{tap} too, as it comes; to be called before the body is taken."""
        self.tap = tap if self.tap is None else partial(_both, self.tap, tap)
        for data in self.reads:
            tap(data)

    def gather(self, gathered: Callable[[int], object]) -> None:
        """Let the body come before anybody takes it, until L{stop_gathering}; to be called when its head has come.

        @param gathered: Called when some of it has come, with how much; with C{0} when that was all, or all that comes.
        """
        self.gathers, self._gathered = True, gathered

    def stop_gathering(self) -> None:
        """Let nothing more of it come until somebody takes it."""
        self.gathers, self._gathered = False, bool
        if self._source is not None and not self.begun:
            self._source.pause()

    def deliverBody(self, protocol: Any) -> None:
        if self.begun:
            raise RuntimeError("The body of an answer can be delivered only once.")
        self.begun = True
        self._protocol = protocol
        protocol.makeConnection(self)
        reads, self.reads = self.reads, []
        for data in reads:
            if self._protocol is not None:
                protocol.dataReceived(data)
        if self._end is not None:
            self._finish(self._end)
        elif self._source is not None and not self.held and not self.waits:
            self._source.resume()

    def offer_chunks(self, take: TakeChunks | None) -> None:
        """See L{ChunkedBody.offer}; nothing of what it takes is shown to the L{tap} or delivered."""
        if isinstance(self.reader, ChunkedBody):
            self.reader.offer(take)

    def wait(self) -> None:
        """Let no more of the body come until L{go_on} is called: whoever watches it is behind."""
        self.waits = True
        if self._source is not None:
            self._source.pause()

    def go_on(self) -> None:
        """Whoever watches the body has caught up."""
        self.waits = False
        if self._source is not None and self.begun and not self.held:
            self._source.resume()

    # What the connection calls

    def received(self, data: bytes) -> None:
        if self.tap is not None:
            self.tap(data)
        if self._protocol is None:
            self.reads.append(data)
            self.waiting_bytes += len(data)
            self._gathered(len(data))
        else:
            self._protocol.dataReceived(data)

    def finished(self, last: bytes = b"") -> None:
        """The body is complete with these bytes. The connection belongs to others from here on."""
        self._source = None
        if last:
            take: Callable[[bytes], object] | None = getattr(self._protocol, "lastReceived", None)
            if take is None:
                self.received(last)
            else:
                if self.tap is not None:
                    self.tap(last)
                take(last)
        self._finish(_DONE)

    def failed(self, reason: Failure) -> None:
        self._source = None
        self._finish(Failure(ResponseFailed([reason])))  # without this response, which knows it

    def _finish(self, end: Failure) -> None:
        self._end = end
        self.offer_chunks(None)  # who takes them may know this response: nothing is to be left to the collector
        self.reader = None
        if self._protocol is not None:
            protocol, self._protocol = self._protocol, None
            protocol.connectionLost(end)
        else:
            self._gathered(0)

    # What the one who takes the body calls

    def pauseProducing(self) -> None:
        if self._source is not None:
            self.held = True
            self._source.pause()

    def resumeProducing(self) -> None:
        if self._source is not None:
            self.held = False
            if not self.waits:
                self._source.resume()

    def stopProducing(self) -> None:
        """The rest is not wanted: the connection is aborted at once."""
        if self._source is not None:
            self._source.abort()

    abortConnection = loseConnection = stopProducing


def _both(first: Callable[[bytes], object], second: Callable[[bytes], object], data: bytes) -> None:
    first(data)
    second(data)


def _stated_length(lines: list[bytes]) -> int | str:
    for line in lines:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return UNKNOWN_LENGTH
