"""Points in time that move with every message, without a timer being touched each time: many share one."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

MAX_STALE_ENTRIES = 64  # that are kept whatever else there is; beyond, half of all may be stale

LATE_SECONDS = 1.0  # after which what is still there is watched; it takes half a second more at most

_log = Logger()


class Watched(Protocol):
    """What may have to be watched."""

    def watch(self) -> object: ...


class Deadlines:
    """Those that share a timer of the reactor: one of Twisted's for each of many idle connections takes 450 bytes each.

    Exact: each is called when its time has come, and there is no timer where there is nothing to wait for.
    """

    __slots__ = ("_clock", "_due", "_heap", "_live", "_number", "_timer", "seconds")

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self.seconds = clock.seconds
        self._heap: list[tuple[float, int, Deadline]] = []  # stale where the deadline is due at another time, or never
        self._number = count()
        self._live = 0
        self._timer: IDelayedCall | None = None
        self._due = 0.0

    def add(self, at: float, deadline: Deadline, *, anew: bool) -> None:
        """It is due then.

        @param anew: Whether it was not due at all until now.
        """
        self._live += anew
        heappush(self._heap, (at, next(self._number), deadline))
        self._tidy()
        if self._timer is None or at < self._due:
            self._wait(at)

    def discard(self) -> None:
        """One of them is due no more."""
        self._live -= 1
        self._tidy()
        if not self._live and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tidy(self) -> None:
        heap = self._heap
        if not self._live:
            heap.clear()
        elif len(heap) > MAX_STALE_ENTRIES + 2 * self._live:
            heap[:] = [entry for entry in heap if entry[2].due == entry[0]]
            heapify(heap)

    def _wait(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()  # not reset(): for that Twisted looks through all timers there are
        self._due = at
        self._timer = self._clock.callLater(max(at - self._clock.seconds(), 0.0), self._fire)

    def _fire(self) -> None:
        self._timer = None
        heap, now = self._heap, self._clock.seconds()
        while heap and heap[0][0] <= now:
            at, _, deadline = heappop(heap)
            if deadline.due != at:
                continue
            self._live -= 1
            try:
                deadline.fire(now)
            except Exception:  # the fault of one is none of the others'
                _log.failure("What was to be done in time failed.")
        self._tidy()
        if heap and (self._timer is None or heap[0][0] < self._due):
            self._wait(heap[0][0])


class LateWatch:
    """Calls C{watch} of what is still there a second after it was added, and forgets it then.

    For what is mostly over sooner, and has no need of a L{Deadline}: to be added and to be discarded is one step of a
    dictionary. There is no timer where there is nothing to wait for.
    """

    __slots__ = ("_added", "_clock", "_timer")

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._added: dict[Watched, float] = {}
        self._timer: IDelayedCall | None = None

    def add(self, watched: Watched) -> None:
        """It is there from now on."""
        self._added[watched] = self._clock.seconds()
        if self._timer is None:
            self._timer = self._clock.callLater(LATE_SECONDS, self._look)

    def discard(self, watched: Watched) -> None:
        """It is over, whether it was added or not."""
        self._added.pop(watched, None)
        if not self._added and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        last = self._clock.seconds() - LATE_SECONDS
        for watched in [each for each, added in self._added.items() if added <= last]:
            self._added.pop(watched, None)
            try:
                watched.watch()
            except Exception:  # the fault of one is none of the others'
                _log.failure("What was to be watched failed.")
        if self._added and self._timer is None:
            self._timer = self._clock.callLater(LATE_SECONDS / 4, self._look)


class Deadline:
    """Calls C{expired} once the time that was last set has come.

    Where it comes to be due early it finds a later time, or none: one look a minute for a busy connection instead of a
    timer for every request.

    @ivar at: When it has come; C{None}: never, until it is set again.
    @ivar due: When it is looked at next; C{None}: it is not.
    """

    __slots__ = ("_deadlines", "_expired", "at", "due")

    def __init__(self, deadlines: Deadlines, expired: Callable[[], None]) -> None:
        self._deadlines = deadlines
        self._expired = expired
        self.at: float | None = None
        self.due: float | None = None

    def set(self, seconds: float) -> None:
        """So many seconds from now, whatever was set before."""
        clock, due = self._deadlines.seconds, self.due
        self.at = at = clock() + seconds
        if due is None or due > at:
            self.due = at
            self._deadlines.add(at, self, anew=due is None)

    def clear(self) -> None:
        """Never, until it is set again."""
        self.at = None

    def stop(self) -> None:
        """Never, and leave no timer behind."""
        self.at = None
        if self.due is not None:
            self.due = None
            self._deadlines.discard()

    def end(self) -> None:
        """Never again. What it would have called is let go at once, although there may be traces of it for a while."""
        self.stop()
        self._expired = _nothing

    def fire(self, now: float) -> None:
        """It is due."""
        self.due, at = None, self.at
        if at is None:
            return
        if at > now:
            self.due = at
            self._deadlines.add(at, self, anew=True)
            return
        self.at = None
        self._expired()


def _nothing() -> None:
    """What one calls that is over."""
