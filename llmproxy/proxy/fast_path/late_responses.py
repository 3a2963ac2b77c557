"""Responses to direct requests whose bodies come behind their heads: these are waited for, as long as they go on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import UNKNOWN_LENGTH

from llmproxy.http import body_hints
from llmproxy.proxy.fast_path.direct_request import DirectRequest
from llmproxy.proxy.fast_path.patience import MAX_LOOKS, PATIENCE_SECONDS, Patience
from llmproxy.wire.body_framing import ChunkedBody
from llmproxy.wire.client.response import Response
from llmproxy.wire.client.response_heads import shape_of

MAX_LATE_BYTES = 256 * 1024  # of a body that is waited for
JSON = b"application/json"


class LateResponses:
    """Waits for bodies of JSON. Streams are not held up, and neither is what is long, or takes its time."""

    def __init__(self, clock: IReactorTime, over: Callable[[DirectRequest, Response], object]) -> None:
        """
        @param over: Called when a body is there, or has failed, or does not come for too long.
        """
        self._clock = clock
        self._over = over
        self._patience: Patience[DirectRequest] = Patience(clock, _size_of, self._give_up)
        self.close = self._patience.close

    def wait(self, request: DirectRequest, response: Response) -> bool:
        """Wait for a body; C{False} where it is not waited for."""
        shape, length, now = shape_of(response.lines), response.length, self._clock.seconds()
        if shape is None or shape.code != 200 or shape.kind < 0 or response.whole is not None:
            return False
        if length == UNKNOWN_LENGTH and not isinstance(response.reader, ChunkedBody):
            return False
        if isinstance(length, int) and length > MAX_LATE_BYTES:
            return False
        if request.expects_stream or body_hints.media_type_of(response.lines[shape.kind]) != JSON:
            return False
        if request.known.flow.route.api.timeouts.flush_interval or request.due - now < PATIENCE_SECONDS * (
            MAX_LOOKS + 2
        ):
            return False
        buffers = request.buffers
        if buffers is not None and buffers.full:
            return False
        response.came_at = now
        request.late = response
        request.hold(response.waiting_bytes)
        response.gather(partial(self._gathered, request))
        self._patience.wait(request)
        return True

    def _gathered(self, request: DirectRequest, size: int) -> None:
        request.hold(size)
        if (not size or _size_of(request) > MAX_LATE_BYTES) and self._patience.leave(request):
            self._give_up(request)

    def _give_up(self, request: DirectRequest) -> None:
        response = self.leave(request)
        if response is not None:
            self._over(request, response)

    def leave(self, request: DirectRequest) -> Response | None:
        """The response that is waited for, which somebody else takes now; C{None} where none is."""
        response, request.late = request.late, None
        self._patience.leave(request)
        if response is not None:
            response.stop_gathering()
        return response


def _size_of(request: DirectRequest) -> int:
    response = request.late
    return 0 if response is None else response.waiting_bytes
