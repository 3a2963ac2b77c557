"""Lets a producer that must be asked for every piece stand where one is expected that pushes."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from zope.interface import implementer


@implementer(IPushProducer)
class PullToPush:
    """Asks an C{IPullProducer} once in every turn of the reactor, until paused or stopped."""

    def __init__(self, producer: Any, clock: IReactorTime) -> None:
        self._producer = producer
        self._clock = clock
        self._next: IDelayedCall | None = None
        self.resumeProducing()

    def pauseProducing(self) -> None:
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def resumeProducing(self) -> None:
        if self._next is None:
            self._next = self._clock.callLater(0, self._pull)

    def stopProducing(self) -> None:
        self.pauseProducing()
        self._producer.stopProducing()

    def _pull(self) -> None:
        self._next = self._clock.callLater(0, self._pull)  # the producer may end it
        self._producer.resumeProducing()
