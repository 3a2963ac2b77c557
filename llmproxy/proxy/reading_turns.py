"""The time in which bodies are read, in each turn of the reactor: however many there are, it is the same."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from llmproxy.base.fair_queue import FairQueue

TURN_SECONDS = 0.005  # that all bodies together are read in one turn of the reactor; what has begun may take longer
SHARE_SECONDS = 0.001  # of that, after which it is the next one's turn: for each the same, so that none gets the rest

Work = Callable[[float], bool]

_log = Logger()


class ReadingTurns:
    """Has bodies read, for no longer than L{TURN_SECONDS} in a turn of the reactor.

    What is left when this time is over waits for the next turns. There, clients take turns, as in fair queueing: one
    that sends a hundred long bodies at once does not make another wait for all of them. What waits is bounded by what
    is held of these bodies.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._waiting: FairQueue[Hashable, tuple[Hashable, Work]] = FairQueue()
        self._turn_ends = 0.0
        self._in_turn = False

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def has_time(self) -> bool:
        """Whether something may be read now: nobody waits, and this turn's time is not over."""
        if not self._in_turn:
            self._in_turn = True
            self._begin_turn()
            return True
        return not self._waiting.owners and self._clock.seconds() <= self._turn_ends

    def begin(self, client: Hashable, work: Work) -> None:
        """Have something read, now or as soon as it is its client's turn.

        @param work: Reads until the clock shows what it is given, or a little, and tells whether there is more to be
            read: then it is called again.
        """
        if not self.has_time() or work(self._clock.seconds() + SHARE_SECONDS):
            self._waiting.push(client, (client, work))

    def turn(self, client: Hashable) -> Deferred[None]:
        """Fires when it is this client's turn to have something read; what follows from that is its work."""
        turn: Deferred[None] = Deferred()

        def take(_: float) -> bool:
            turn.callback(None)
            return False

        self.begin(client, take)
        return turn

    def _begin_turn(self) -> None:
        self._turn_ends = self._clock.seconds() + TURN_SECONDS
        self._clock.callLater(0, self._next_turn)

    def _next_turn(self) -> None:
        if not self._waiting.owners:
            self._in_turn = False
            return
        self._begin_turn()
        while self._waiting.owners and (now := self._clock.seconds()) <= self._turn_ends:
            client, work = self._waiting.pop()
            try:
                more = work(now + SHARE_SECONDS)
            except Exception:  # the fault of one is none of the others'
                _log.failure("A body that waited could not be read.")
                continue
            if more:
                self._waiting.push(client, (client, work))
