"""Reads a request's body while it passes, in turns of the reactor that are short."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from llmproxy.http.request_reader import RequestContent, RequestReader

MAX_WAITING_BYTES = 256 * 1024  # that came and are not read yet, beyond which the client waits


class BodyReading:
    """Feeds a L{RequestReader}, once in a turn, and has it go on in later turns where there is much to be read.

    @ivar count: Bytes that came.
    """

    def __init__(self, reader: RequestReader, clock: IReactorTime, caught_up: Callable[[], object] = bool) -> None:
        """
        @param caught_up: Called when it is not L{behind} any more.
        """
        self._reader = reader
        self._caught_up = caught_up
        self._clock = clock
        self._waiting: list[Deferred[Failure | None]] = []
        self._scheduled = False
        self.count = 0

    def feed(self, data: bytes) -> None:
        """A tap on an upload."""
        self.count += len(data)
        self._reader.feed(data, at_once=not self._scheduled)
        self._go_on_later()

    @property
    def behind(self) -> bool:
        """Whether more waits to be read than should."""
        return self._reader.queued > MAX_WAITING_BYTES

    def content(self, *, ended: bool) -> RequestContent:
        """What is known so far.

        @param ended: Whether all of the body has come.
        """
        if ended and not self._reader.pending:
            self._reader.end()
        return self._reader.content()

    async def whole(self) -> RequestContent:
        """What all of it says, once it is read; fails as the reader does. All of it has come."""
        while self._reader.pending:
            turn: Deferred[Failure | None] = Deferred()
            self._waiting.append(turn)
            await turn
        self._reader.end()
        return self._reader.content()

    def _go_on_later(self) -> None:
        if self._reader.pending and not self._scheduled:
            self._scheduled = True
            self._clock.callLater(0, self._go_on)

    def _go_on(self) -> None:
        self._scheduled = False
        behind = self.behind
        try:
            self._reader.work()
        except Exception:  # nobody else would tell those who wait
            self._tell(Failure())
            return
        self._go_on_later()
        if behind and not self.behind:
            self._caught_up()
        if not self._reader.pending:
            self._tell(None)

    def _tell(self, outcome: Failure | None) -> None:
        waiting, self._waiting = self._waiting, []
        for turn in waiting:
            turn.callback(outcome)
