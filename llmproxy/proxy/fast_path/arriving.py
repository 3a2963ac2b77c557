"""Requests with a flow whose bodies come in several reads: these are waited for, as long as they go on, and then for
the time to read them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from llmproxy.http.credentials import carried
from llmproxy.http.field_lines import FieldLines
from llmproxy.http.whole_body import MAX_CHECKED_BYTES
from llmproxy.proxy.fast_path.flow import KnownHead
from llmproxy.proxy.fast_path.patience import Patience
from llmproxy.proxy.reading_turns import ReadingTurns
from llmproxy.wire.buffers import Buffers
from llmproxy.wire.parser import RequestHead
from llmproxy.wire.server.direct import DirectChannel
from llmproxy.wire.server.request_body import RequestBody


class ArrivingRequest:
    """One that is known by its head, until its body is read; its connection knows it as the request under way.

    @ivar started_at: When its head came, in seconds since the epoch; C{arrived_at}: by the clock.
    @ivar is_over: Whether it waits for its client's turn alone.
    """

    __slots__ = (
        "arrived_at",
        "channel",
        "head",
        "is_over",
        "known",
        "on_lost",
        "stalled",
        "started_at",
        "upload",
    )

    begun = False
    chunked = 0
    minor = 1

    def __init__(
        self,
        channel: DirectChannel,
        head: RequestHead,
        upload: RequestBody,
        times: tuple[float, float],
        on_lost: Callable[[ArrivingRequest, Failure], object],
    ) -> None:
        self.channel = channel
        self.head = head
        self.known: KnownHead = head.known.known
        self.upload = upload
        self.started_at, self.arrived_at = times
        self.on_lost = on_lost
        self.stalled = self.is_over = False

    @property
    def lines(self) -> FieldLines:
        """Its field lines."""
        return self.head.lines

    def connectionLost(self, reason: Failure) -> None:
        self.on_lost(self, reason)

    def abort(self) -> None:
        """Only a response that has begun is cut."""


class ArrivalOwner(Protocol):
    """Goes on with those requests."""

    def arrived(self, request: ArrivingRequest) -> None:
        """Its body is there, or has failed, or does not come for too long; it may be read now."""

    def abandoned(self, request: ArrivingRequest, reason: Failure) -> None:
        """Its client has left."""


class ArrivingBodies:
    """Waits for bodies."""

    def __init__(
        self, clock: IReactorTime, turns: ReadingTurns, owner: ArrivalOwner, buffers: Buffers | None = None
    ) -> None:
        self._clock = clock
        self._buffers = buffers
        self._turns = turns
        self._owner = owner
        self._patience: Patience[ArrivingRequest] = Patience(clock, _size_of, self._take_turn)
        self.close = self._patience.close

    def wait(self, channel: DirectChannel, head: RequestHead, upload: RequestBody, started_at: float) -> bool:
        """Wait for a body; C{False} for one that is not to be had whole, or not to be held until then."""
        if not isinstance(upload.length, int) or upload.length > min(MAX_CHECKED_BYTES, upload.limit):
            return False
        if not upload.hold_all():
            return False
        request = ArrivingRequest(channel, head, upload, (started_at, self._clock.seconds()), self._lost)
        self._patience.wait(request)
        upload.when_over(partial(self._over, request))
        channel.hand_over(request)
        return True

    def wait_for_turn(self, channel: DirectChannel, head: RequestHead, body: bytes, started_at: float) -> None:
        """Wait until there is time to read this body, which is there."""
        upload = RequestBody.of(body, channel.limits.messages.body, self._buffers)
        request = ArrivingRequest(channel, head, upload, (started_at, self._clock.seconds()), self._lost)
        channel.hand_over(request)
        self._take_turn(request)

    def _over(self, request: ArrivingRequest) -> None:
        if self._patience.leave(request):
            self._take_turn(request)

    def _take_turn(self, request: ArrivingRequest) -> None:
        self._leave(request.upload)
        request.is_over = True
        client = (request.channel.remote, carried(request.lines))
        self._turns.begin(client, partial(self._go_on, request))

    def _go_on(self, request: ArrivingRequest, _: float) -> bool:
        if request.is_over:  # else its client has left
            request.is_over = False
            self._owner.arrived(request)
        return False

    @staticmethod
    def _leave(upload: RequestBody) -> None:
        upload.when_over(None)
        if not upload.done:
            upload.hold_no_more()

    def _lost(self, request: ArrivingRequest, reason: Failure) -> None:
        self._leave(request.upload)
        waited, request.is_over = self._patience.leave(request) or request.is_over, False
        if waited:
            self._owner.abandoned(request, reason)


def _size_of(request: ArrivingRequest) -> int:
    return request.upload.count
