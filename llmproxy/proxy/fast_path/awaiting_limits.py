"""Direct requests whose limits are counted elsewhere, in Redis or by the supervisor of several workers: they wait until
it is known whether they are admitted.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from twisted.logger import Logger
from twisted.python.failure import Failure

from llmproxy.http.field_lines import FieldLines
from llmproxy.http.request_reader import RequestContent
from llmproxy.limits.limiter import LimitReservation
from llmproxy.limits.pending import PendingReservation
from llmproxy.proxy.fast_path.flow import FilledHead, KnownHead
from llmproxy.wire.buffers import Buffers
from llmproxy.wire.parser import RequestHead
from llmproxy.wire.server.direct import DirectChannel
from llmproxy.wire.server.request_body import SMALL_BYTES

_log = Logger()


class ReadRequest(NamedTuple):
    """A request whose head is known, and whose body has been read.

    @ivar filled: What stands in the holes of its head; C{None} where that is the length of its body alone.
    @ivar content: What its body says, where all of that has been read; C{model}: the model that it asks for;
        C{expects_stream}: whether it asks for a stream.
    @ivar started_at: When its head came, in seconds since the epoch; C{arrived_at}: by the clock.
    """

    channel: DirectChannel
    known: KnownHead
    filled: FilledHead | None
    body: bytes
    content: RequestContent | None
    model: str
    expects_stream: bool
    started_at: float
    arrived_at: float

    @property
    def parsed(self) -> RequestHead:
        """Its head in any case."""
        return self.known.parsed(self.filled, len(self.body))

    @property
    def lines(self) -> FieldLines:
        """Its field lines."""
        return self.known.lines(self.filled)


class LimitedRequest:
    """One that waits, as its channel knows it; L{ChannelRequest<llmproxy.wire.server.direct.ChannelRequest>}.

    @ivar let_through_at: When it began to wait.
    """

    __slots__ = ("_buffers", "_held", "_owner", "_waiting", "let_through_at", "read", "stalled")

    begun = False
    chunked = 0
    minor = 1

    def __init__(self, read: ReadRequest, owner: LimitsOwner, now: float, buffers: Buffers | None) -> None:
        self.read = read
        self.let_through_at = now
        self.stalled = False
        self._owner = owner
        self._waiting: PendingReservation[LimitReservation] | None = None
        self._buffers = buffers
        self._held = 0
        if buffers is not None and len(read.body) > SMALL_BYTES:
            self._held = len(read.body)
            buffers.hold(self._held)
        read.channel.begin_direct(self)

    def wait(self, reserving: PendingReservation[LimitReservation]) -> None:
        """Have it wait until it is known whether its limits admit it."""
        self._waiting = reserving
        reserving.then(self._admit, self.refuse)

    @property
    def upload(self) -> LimitedRequest:
        """What is held of its body is held by itself."""
        return self

    def release(self) -> None:
        """Nothing of its body is held any more."""
        held, self._held = self._held, 0
        if held and self._buffers is not None:
            self._buffers.hold(-held)

    def _admit(self, reservation: LimitReservation) -> None:
        self._waiting = None
        self.release()
        try:
            self._owner.admit(self, reservation)
        except Exception:  # whoever decides has others to tell
            _log.failure("A request that waited for its limits was lost.")

    def refuse(self, error: BaseException) -> None:
        """Its limits do not admit it: nobody is to ask them, and to count that, once more."""
        self._waiting = None
        self.release()
        try:
            self._owner.refuse(self, error)
        except Exception:
            _log.failure("A request that waited for its limits was lost.")

    def connectionLost(self, reason: Failure) -> None:
        """Its client has left. What is reserved for it all the same is given back by who counts."""
        if self._waiting is not None:
            self._waiting.cancel()
        self._waiting = None
        self.release()
        self._owner.abandon(self, reason)

    def abort(self) -> None:
        """Only a response that has begun is cut."""


class LimitsOwner(Protocol):
    """Goes on with those requests, each of which is told of once."""

    def admit(self, request: LimitedRequest, reservation: LimitReservation) -> None: ...
    def refuse(self, request: LimitedRequest, error: BaseException) -> None: ...
    def abandon(self, request: LimitedRequest, reason: Failure) -> None: ...
