"""Requests with a flow whose bodies come in several reads: these are waited for, as long as they go on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from llmproxy.http.field_lines import FieldLines
from llmproxy.http.request_reader import MAX_WHOLE_BYTES
from llmproxy.proxy.fast_path.flow import KnownHead
from llmproxy.wire.parser import RequestHead
from llmproxy.wire.server.direct import DirectChannel
from llmproxy.wire.server.request_body import RequestBody

BODY_PATIENCE_SECONDS = 0.05  # of silence while a body is on its way; then it is streamed as any other
MAX_BODY_LOOKS = 20  # how often that is looked at, so that no body is waited for for longer than a second
_NEW = -1  # bytes of a body that came after the last look


class ArrivingRequest:
    """One that is known by its head, until its body is there; its connection knows it as the request under way.

    @ivar started_at: When its head came, in seconds since the epoch; C{arrived_at}: by the clock.
    """

    __slots__ = (
        "arrived_at",
        "channel",
        "head",
        "known",
        "looks",
        "on_lost",
        "seen",
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
        self.stalled = False
        self.looks = 0
        self.seen = _NEW

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
        """Its body is there, or has failed, or does not come for too long."""

    def abandoned(self, request: ArrivingRequest, reason: Failure) -> None:
        """Its client has left."""


class ArrivingBodies:
    """Waits for bodies, with one timer for all."""

    def __init__(self, clock: IReactorTime, owner: ArrivalOwner) -> None:
        self._clock = clock
        self._owner = owner
        self._waiting: dict[ArrivingRequest, None] = {}
        self._timer: IDelayedCall | None = None

    def wait(self, channel: DirectChannel, head: RequestHead, upload: RequestBody, started_at: float) -> bool:
        """Wait for a body; C{False} for one that is not to be had whole, or not to be held until then."""
        if not isinstance(upload.length, int) or upload.length > min(MAX_WHOLE_BYTES, upload.limit):
            return False
        if not upload.hold_all():
            return False
        request = ArrivingRequest(channel, head, upload, (started_at, self._clock.seconds()), self._lost)
        self._waiting[request] = None
        if self._timer is None:
            request.seen = upload.count
            self._timer = self._clock.callLater(BODY_PATIENCE_SECONDS, self._look)
        upload.when_over(partial(self._over, request))
        channel.hand_over(request)
        return True

    def _over(self, request: ArrivingRequest) -> None:
        if self._leave(request):
            self._owner.arrived(request)

    def _lost(self, request: ArrivingRequest, reason: Failure) -> None:
        if self._leave(request):
            self._owner.abandoned(request, reason)

    def _leave(self, request: ArrivingRequest) -> bool:
        request.upload.when_over(None)
        return self._waiting.pop(request, self) is None

    def _look(self) -> None:
        """Wait on as long as they go on."""
        self._timer, late = None, []
        for request in self._waiting:
            before, request.seen = request.seen, request.upload.count
            if before != _NEW:
                request.looks += 1
                if request.looks >= MAX_BODY_LOOKS or request.seen == before:
                    late.append(request)
        if late:  # under load they may be there, and just not have been read
            self._clock.callLater(0, self._give_up, late)
        if self._waiting:
            self._timer = self._clock.callLater(BODY_PATIENCE_SECONDS, self._look)

    def _give_up(self, late: list[ArrivingRequest]) -> None:
        for request in late:
            self._over(request)

    def close(self) -> None:
        """Leave no timer behind, unless somebody still waits for it."""
        if self._timer is not None and not self._waiting:
            self._timer.cancel()
            self._timer = None
