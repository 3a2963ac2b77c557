"""Bodies of responses that nobody wants: read to their end, so that their connections can be used again."""

from __future__ import annotations

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from llmproxy.wire.client.transport import Response

MAX_DISCARDED_BYTES = 64 * 1024  # of a body that is read only for the sake of its connection
DISCARD_SECONDS = 5.0


def discard(response: Response, clock: IReactorTime) -> None:
    """Read the body of a response that no client gets, or abort it where it is too long for that."""
    if response.whole is not None:
        return
    if isinstance(response.length, int) and response.length <= MAX_DISCARDED_BYTES:
        response.deliverBody(_UnreadBody(clock.callLater(DISCARD_SECONDS, response.stopProducing)))
    else:
        response.stopProducing()


class _UnreadBody(Protocol):
    def __init__(self, too_late: IDelayedCall) -> None:
        self._too_late = too_late

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._too_late.active():
            self._too_late.cancel()
