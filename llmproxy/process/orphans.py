"""What the first process of a container owes to processes whose parents have ended: to reap them."""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import suppress

from twisted.internet.interfaces import IReactorTime
from twisted.internet.process import reapProcessHandlers
from twisted.internet.task import LoopingCall

REAP_SECONDS = 5.0
MAX_REAPED = 1000  # at once


def reap(own: Collection[int]) -> int:
    """Let zombies go that are nobody's; how many they were.

    @param own: Ids of the processes whose ends somebody here waits for.
    """
    for count in range(MAX_REAPED):
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return count
        if ended is None or ended.si_pid in own:
            return count  # Twisted reaps those in a moment; others come the next time
        with suppress(ChildProcessError):
            os.waitpid(ended.si_pid, os.WNOHANG)
    return MAX_REAPED


def reap_orphans(clock: IReactorTime) -> LoopingCall:
    """Do so now and then, from now on."""
    reaping = LoopingCall(lambda: reap(reapProcessHandlers))
    reaping.clock = clock
    reaping.start(REAP_SECONDS, now=False)
    return reaping
