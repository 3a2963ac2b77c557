"""An entry on its way to a client: shaped like a provider's response, so that it is carried like one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from zope.interface import implementer

from llmproxy.caching.rules import conditional
from llmproxy.caching.rules.entry import Entry

MAX_ONE_WRITE_BYTES = 256 * 1024  # of a body that is sent in one write; a larger one goes in chunks, as they are taken
CHUNK_BYTES = 64 * 1024
MAX_CHUNK_DELAY_SECONDS = 2.0  # that a timed replay waits between two chunks at most

DONE = Failure._withoutTraceback(ResponseDone("The body is complete."))


@implementer(IPushProducer)
class CachedResponse:
    """As L{llmproxy.wire.client.response.Response}, out of an entry.

    @ivar entry: Where it comes from.
    @ivar count: Bytes of the body; C{outcome}: how sending them ended, where that was one write.
    """

    outcome = "complete"

    _protocol: Any = None
    _chunks: Iterator[tuple[float, bytes]]
    _next: tuple[float, bytes] | None = None
    _waiting: IDelayedCall | None = None
    _held = False
    _flowing = False

    def __init__(
        self,
        entry: Entry,
        code: int,
        phrase: bytes,
        lines: list[bytes],
        body: bytes,
        length: int | None,
        pace: IReactorTime | None = None,
    ) -> None:
        """
        @param length: What C{Content-Length} says; C{None}: nothing.
        @param pace: The clock by which a stream is sent at the pace in which it came; C{None}: as fast as it is taken.
        """
        self.entry = entry
        self.code = code
        self.phrase = phrase
        self.lines = lines
        self.body = body
        self.length = length
        self.count = len(body)
        self._clock = pace if entry.chunk_timings else None

    @property
    def fits_one_write(self) -> bool:
        """Whether all of it can be sent in one write."""
        return self._clock is None and len(self.body) <= MAX_ONE_WRITE_BYTES

    @property
    def whole(self) -> bytes | None:
        return self.body if self.fits_one_write else None

    def deliverBody(self, protocol: Any) -> None:
        self._protocol = protocol
        self._chunks = self._timed() if self._clock is not None else self._cut()
        protocol.makeConnection(self)
        self._flow()

    # The one who takes it

    def pauseProducing(self) -> None:
        self._held = True

    def resumeProducing(self) -> None:
        self._held = False
        self._flow()

    def stopProducing(self) -> None:
        self._protocol = None
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    # The chunks

    def _flow(self) -> None:
        if self._flowing or self._waiting is not None:
            return
        self._flowing = True
        while self._protocol is not None and not self._held:
            due = self._next or next(self._chunks, None)
            self._next = None
            if due is None:
                protocol, self._protocol = self._protocol, None
                protocol.connectionLost(DONE)
                break
            wait, chunk = due
            if wait and self._clock is not None:
                self._next = (0.0, chunk)
                self._waiting = self._clock.callLater(wait, self._go_on)
                break
            self._protocol.dataReceived(chunk)
        self._flowing = False

    def _go_on(self) -> None:
        self._waiting = None
        self._flow()

    def _cut(self) -> Iterator[tuple[float, bytes]]:
        for start in range(0, len(self.body), CHUNK_BYTES):
            yield 0.0, self.body[start : start + CHUNK_BYTES]

    def _timed(self) -> Iterator[tuple[float, bytes]]:
        start = 0
        for length, gap in self.entry.chunk_timings:
            yield min(gap, MAX_CHUNK_DELAY_SECONDS), self.body[start : start + length]
            start += length
        if start < len(self.body):
            yield 0.0, self.body[start:]


def cached_response(
    entry: Entry, method: bytes, lines: Iterable[bytes], now: float, pace: IReactorTime | None
) -> CachedResponse:
    """The response to a request with this method and these field lines: the entry, or a 304."""
    age = b"Age: %d" % entry.age(now)
    if method in conditional.METHODS and conditional.not_modified(entry, lines, now):
        return CachedResponse(entry, 304, b"Not Modified", [*conditional.not_modified_lines(entry), age], b"", None)
    body = b"" if method == b"HEAD" else entry.body
    length = None if entry.stream else len(entry.body)
    return CachedResponse(entry, entry.code, entry.phrase, [*entry.lines, age], body, length, pace)
