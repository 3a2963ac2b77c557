"""The call of a direct request for whose response others wait too: what becomes of it is the pipeline's affair."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime

from llmproxy.proxy.fast_path.direct_request import DirectRequest
from llmproxy.proxy.fast_path.head_deadlines import HeadDeadlines
from llmproxy.wire.client.response import Response
from llmproxy.wire.client.response_heads import WholeResponse


class JoinedCall:
    """Takes what becomes of the call in place of its first owner.

    @ivar outcome: Fires with the response, of which nothing has been read, or with why there is none. Cancelled, it
        gives up the call.
    """

    def __init__(
        self, request: DirectRequest, leaving: Callable[[], object], clock: IReactorTime, deadlines: HeadDeadlines
    ) -> None:
        """
        @param request: Which has been sent.
        @param leaving: As in L{RequestOwner<llmproxy.wire.client.pending_request.RequestOwner>}.
        """
        self.outcome: Deferred[Response | BaseException] = Deferred(self._cancelled)
        self.leaving = leaving
        self._request = request
        self._clock = clock
        self._deadlines = deadlines
        request.owner = self

    def accepts(self, request: Any, response: WholeResponse) -> bool:
        """Each of those who wait is to get it in a way of its own."""
        return False

    def complete(self, request: Any) -> None:
        raise NotImplementedError("No response is accepted.")

    def responded(self, request: Any, response: Response) -> None:
        self._end()
        self._request.attempt.responded(response.code, self._clock.seconds())
        self.outcome.callback(response)

    def failed(self, request: Any, error: BaseException) -> None:
        self._end()
        self._request.attempt.failed(error, self._clock.seconds())
        self.outcome.callback(error)

    def _cancelled(self, _: object) -> None:
        self._request.give_up()
        self._end()
        self._request.attempt.failed(CancelledError(), self._clock.seconds())

    def _end(self) -> None:
        self._deadlines.forget(self._request)
        self._request.hop.leave()
