"""One request of a flow that needs no objects but itself: to its connection it is what is asked, to its channel what is
answered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.python.failure import Failure

from llmproxy.caching import CacheRequest
from llmproxy.http.field_lines import FieldLines
from llmproxy.http.request_reader import RequestContent
from llmproxy.http.whole_body import read_at_once
from llmproxy.limits.in_flight import Slots
from llmproxy.limits.limiter import LimitReservation
from llmproxy.limits.pending import PendingReservation
from llmproxy.model import Usage
from llmproxy.proxy.fast_path.flow import FilledHead, KnownHead
from llmproxy.proxy.fast_path.next_hop import NextHop
from llmproxy.proxy.fast_path.prepared_flow import RequestFacts
from llmproxy.upstream.circuits import Attempt
from llmproxy.wire.buffers import Buffers
from llmproxy.wire.client.pending_request import OwnedRequest
from llmproxy.wire.client.response import Response
from llmproxy.wire.client.response_heads import WholeResponse
from llmproxy.wire.server.direct import DirectChannel


class DirectRequestOwner(Protocol):
    """Is told of its client and its limits, too, and of others who ask for the same."""

    def admit(self, request: DirectRequest, reservation: LimitReservation) -> None: ...
    def refuse(self, request: DirectRequest, error: BaseException) -> None: ...
    def client_left(self, request: DirectRequest, reason: Failure) -> None: ...
    def joined(self, request: DirectRequest) -> None: ...


class DirectRequest(OwnedRequest):
    """One that is its own channel's request as well.

    @ivar path: Who serves it; C{owner}: who takes what becomes of its call, which is the same unless others have joined
        that.
    @ivar fill: What the cache was asked for, where it has had no response; C{storable}: whether that may be stored.
    @ivar late: Its response, as long as the body is waited for (L{LateResponses}).
    @ivar held: Bytes of its body and of that which are counted as held.
    @ivar hop: Where it was sent.
    @ivar received: Its body, as it came; C{whole}: as it is sent, which is the same unless C{usage_injected}: where its
        usage is asked for in its client's place.
    @ivar read: What its body says, where all of that has been read.
    @ivar waits: Whether it has not been sent; C{waits_since}: when it began to wait for limits that are counted
        elsewhere, or was refused by any; C{pending}: what it waits for.
    @ivar expects_stream: Whether it asks for a stream; C{stream}: whether its response is one.
    @ivar reply: All that is to be sent to the client, once the response has been accepted; C{usage}: what it used.
    @ivar measure: Sets its C{usage}, and says whether anybody has measured that, as C{is_measured} does then.
    @ivar response_text: The response's body, without any coding.
    """

    __slots__ = (
        "arrived_at",
        "attempt",
        "authorized_at",
        "buffers",
        "cache",
        "channel",
        "client",
        "due",
        "ended_at",
        "error",
        "expects_stream",
        "facts",
        "fill",
        "filled",
        "first_byte_at",
        "held",
        "hop",
        "is_measured",
        "known",
        "late",
        "ledger_id",
        "measure",
        "model",
        "outcome",
        "path",
        "pending",
        "read",
        "received",
        "reply",
        "request_id",
        "reservation",
        "response",
        "response_bytes",
        "response_text",
        "response_type",
        "sent_at",
        "slot",
        "stalled",
        "started_at",
        "storable",
        "stream",
        "usage",
        "usage_injected",
        "waits",
        "waits_since",
    )
    # What its channel asks
    begun = False
    chunked = 0
    minor = 1
    # What its connection asks
    method = b"POST"
    raw = True
    project = ""

    arrived_at: float
    attempt: Attempt
    authorized_at: float
    buffers: Buffers | None
    cache: str
    channel: DirectChannel
    client: str
    due: float
    ended_at: float
    expects_stream: bool
    facts: RequestFacts
    fill: CacheRequest | None
    filled: FilledHead | None
    first_byte_at: float
    held: int
    hop: NextHop
    is_measured: bool
    known: KnownHead
    late: Response | None
    ledger_id: str
    measure: Callable[[DirectRequest], bool]
    model: str
    path: DirectRequestOwner
    pending: PendingReservation[LimitReservation] | None
    read: RequestContent | None
    received: bytes
    reply: bytes
    request_id: str
    reservation: LimitReservation | None
    response: WholeResponse
    response_bytes: int
    response_text: bytes
    response_type: bytes
    sent_at: float
    slot: Slots
    started_at: float
    storable: bool
    stream: bool
    usage: Usage
    whole: bytes

    def __init__(self) -> None:
        # Not the base's: there is no Deferred, and its owner sets the rest.
        self.holder: Any = None
        self.started = self.sent = self.repeated = self.gone = self.stalled = self.usage_injected = False
        self.waits = self.storable = True
        self.pending = self.reservation = self.fill = self.late = None
        self.held, self.waits_since = 0, 0.0
        self.outcome, self.error = "complete", ""

    @property
    def lines(self) -> FieldLines:
        """Its field lines; those of another that differs in the length of its body alone."""
        return self.known.lines(self.filled)

    @property
    def content(self) -> RequestContent:
        """What its body says: all of it is read when somebody asks, which is rare."""
        content = self.read
        if content is None:
            prepared = self.known.prepared
            assert prepared is not None
            content = self.read = read_at_once(self.received, self.lines, prepared.wanted)
        return content

    # What its limits say

    def admit(self, reservation: LimitReservation) -> None:
        self.path.admit(self, reservation)

    def refuse(self, error: BaseException) -> None:
        self.path.refuse(self, error)

    # What the cache says

    def become_joinable(self) -> None:
        self.path.joined(self)

    # What its channel says

    @property
    def upload(self) -> DirectRequest:
        """What is held of its body is held by itself."""
        return self

    def hold(self, size: int) -> None:
        """So many bytes more are held for it."""
        if self.buffers is not None:
            self.held += size
            self.buffers.hold(size)

    def release(self) -> None:
        """Nothing is held for it any more."""
        held, self.held = self.held, 0
        if held and self.buffers is not None:
            self.buffers.hold(-held)

    def connectionLost(self, reason: Failure) -> None:
        self.path.client_left(self, reason)

    def abort(self) -> None:
        """Only a response that has begun is cut."""
