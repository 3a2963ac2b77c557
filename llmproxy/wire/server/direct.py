"""How requests are served that need no L{Request<llmproxy.wire.server.request.Request>}: whoever knows their heads
takes them off their connection, and answers with bytes.
"""

from __future__ import annotations

from typing import Any, Protocol

from twisted.python.failure import Failure

from llmproxy.wire.parser import RequestHead
from llmproxy.wire.server.request import RequestChannel
from llmproxy.wire.server.request_body import RequestBody
from llmproxy.wire.server.server_limits import ServerLimits


class HeldUpload(Protocol):
    """What is held of a request's body."""

    def release(self) -> None: ...


class ChannelRequest(Protocol):
    """A request under way, as its connection knows it; L{Request} is one.

    @ivar begun: Whether its response has begun; C{chunked}: in chunks. C{minor}: of its version.
    @ivar stalled: Whether its client was cut off because it took too little.
    """

    minor: int
    stalled: bool

    @property
    def begun(self) -> bool: ...
    @property
    def chunked(self) -> Any: ...
    @property
    def upload(self) -> HeldUpload: ...

    def connectionLost(self, reason: Failure) -> None: ...
    def abort(self) -> None: ...


class DirectChannel(RequestChannel, Protocol):
    """What such a request needs of its connection.

    @ivar expected: Whatever the one who serves requests looks for first in what comes next; C{None}: nothing.
    """

    expected: Any
    limits: ServerLimits

    def begin_direct(self, request: ChannelRequest) -> None:
        """It is under way from now on."""

    def hand_over(self, request: ChannelRequest) -> None:
        """It goes on as this."""

    def abortConnection(self) -> None:
        """End it at once, whatever is under way."""


class DirectRequests(Protocol):
    """Serves requests directly, where nothing about them is unusual; each call says whether it has."""

    def take(self, channel: DirectChannel, data: bytes) -> bool:
        """What was read on a connection on which nothing is under way."""

    def serve(self, channel: DirectChannel, head: RequestHead, body: bytes) -> bool:
        """A request whose head is known."""

    def wait(self, channel: DirectChannel, head: RequestHead, upload: RequestBody) -> bool:
        """Likewise, while its body is on its way: go on with it once that is there, or has failed."""
