"""Takes a body that no client is waiting for."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone


class DiscardBody(Protocol):
    """Give it to C{deliverBody}.

    @ivar done: Fires with whether the body was complete. Cancelled, it stops whoever sends it.
    """

    def __init__(self) -> None:
        self.done: Deferred[bool] = Deferred(lambda _: self.transport.stopProducing())  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        """Of no interest."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.done.called:
            self.done.callback(isinstance(reason.value, ResponseDone))
