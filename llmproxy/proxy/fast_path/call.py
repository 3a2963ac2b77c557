"""One request on its way to the provider without the pipeline: what its connection knows as a pending request."""

from __future__ import annotations

from typing import Protocol

from llmproxy import errors
from llmproxy.proxy.context import RequestContext
from llmproxy.proxy.fast_path.flow import Flow
from llmproxy.upstream.circuits import Attempt
from llmproxy.upstream.upstreams import HeadTimer
from llmproxy.wire.client.pending_request import OwnedRequest
from llmproxy.wire.client.request_writer import BytesBody
from llmproxy.wire.client.response import Response


class CallOwner(Protocol):
    """Whoever made the call."""

    def responded(self, call: FastCall, response: Response) -> None: ...
    def failed(self, call: FastCall, error: BaseException) -> None: ...


class FastCall(OwnedRequest):
    """One that has a context.

    @ivar timer: Cancels it when its response's head takes too long.
    """

    __slots__ = ("attempt", "context", "flow", "timer")

    def __init__(
        self, owner: CallOwner, context: RequestContext, flow: Flow, head: bytes, body: BytesBody, attempt: Attempt
    ) -> None:
        # Not the base's: there is no Deferred.
        self.owner = owner
        self.context = context
        self.flow = flow
        self.attempt = attempt
        self.timer: HeadTimer | None = None
        self.method = context.request.method
        self.head = head
        self.body = body
        self.raw = True
        self.project = ""
        self.whole: bytes | None = body.received
        self.holder = None
        self.started = self.sent = self.repeated = self.gone = False

    # What its timer calls

    called = False

    def cancel(self) -> None:
        """The head took too long."""
        timer = self.timer
        lost = 0.0 if timer is None else timer.lost
        self.give_up()
        self.owner.failed(self, errors.UpstreamTimeout(f"The provider did not answer within {lost:g} s."))
