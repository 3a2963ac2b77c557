"""What is to be done once all that has arrived in a turn of the reactor has been read."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.internet.interfaces import IReactorTime


def end_of_turn(clock: IReactorTime) -> Callable[[Callable[[], object]], object]:
    """Has what it is given called at the end of the turn.

    @param clock: A reactor; a L{LeanEPollReactor<llmproxy.wire.reactor>} is asked for no timer in each turn.
    """
    return getattr(clock, "at_end_of_turn", None) or partial(clock.callLater, 0)
