"""Direct requests whose response's head has not come, and until when it must: one timer for all of them."""

from __future__ import annotations

from math import inf

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from llmproxy import errors
from llmproxy.proxy.fast_path.direct_request import DirectRequest


class HeadDeadlines:
    """Gives up requests that their provider does not answer in time."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._waiting: dict[DirectRequest, None] = {}
        self._timer: IDelayedCall | None = None
        self._next_due = inf  # while there is no timer

    def watch(self, request: DirectRequest, due: float) -> None:
        """Give it up at this time of the clock."""
        request.due = due
        self._waiting[request] = None
        if due < self._next_due:
            if self._timer is not None:
                self._timer.cancel()
            self._look_at(due)

    def forget(self, request: DirectRequest) -> None:
        """Its head has come, or will not."""
        self._waiting.pop(request, None)

    def _look_at(self, due: float) -> None:
        self._next_due = due
        self._timer = self._clock.callLater(max(due - self._clock.seconds(), 0.0), self._look)

    def _look(self) -> None:
        self._timer, self._next_due, now = None, inf, self._clock.seconds()
        for request in [each for each in self._waiting if each.due <= now]:
            request.give_up()
            lost = now - request.sent_at
            request.owner.failed(request, errors.UpstreamTimeout(f"The provider did not answer within {lost:g} s."))
        due = min((each.due for each in self._waiting), default=inf)
        if due < self._next_due and self._timer is None:
            self._look_at(due)

    def close(self) -> None:
        """Leave no timer behind, unless somebody still waits for it."""
        if self._timer is not None and not self._waiting:
            self._timer.cancel()
            self._timer, self._next_due = None, inf
