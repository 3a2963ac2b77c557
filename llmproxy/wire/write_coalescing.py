"""Lets whole messages and chunks of streams that are written in one turn of the reactor leave together, at its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from llmproxy.base.end_of_turn import end_of_turn

_log = Logger()

IDLE_SECONDS = 0.0005  # seconds since the last message, after which the next waits for no other
MAX_WAITING_MESSAGES = 16  # messages that wait at a time


class HoldingWriter(Protocol):
    """Holds what it was given to write."""

    def leave(self) -> object:
        """Write it, if it has not been written meanwhile."""


class WriteCoalescer:
    """Under load, sending at once makes the kernel wake the other end for each message, and the other end go back to
    sleep after each; sent together, they wake it once. That is a sixth of a small request's time.

    A message that follows none waits for nothing. A chunk of a stream always waits: where many come, as many come in
    each turn, and it is over soon where it is the only one.

    @ivar held: Those that hold chunks of streams until the end of the turn; whoever adds the first of them, or the last
        for which there is room (C{most}), says so (L{on_held}).
    """

    def __init__(self, clock: IReactorTime, most: int = MAX_WAITING_MESSAGES) -> None:
        """
        @param most: How many wait at a time; before one more does, all of them leave.
        """
        self._seconds = clock.seconds
        self._at_end = end_of_turn(clock)
        self.most = most
        self.held: list[HoldingWriter] = []
        self._waiting: list[Callable[[], object]] = []
        self._preceding: list[Callable[[], object]] = []
        self._last = 0.0
        self._ending = self._leaving = False

    def precede(self, call: Callable[[], object]) -> None:
        """Call this before anything leaves: whoever gets that may act on it elsewhere, where something else is to be
        known by then."""
        self._preceding.append(call)

    def wait(self, leave: Callable[[], object], always: bool = False) -> bool:
        """Say whether there is something to wait for; if so, C{leave} is called once, before the turn is over, and not
        before this has returned.

        @param always: Whether it is to wait for the end of the turn even where it follows none.
        """
        waiting = self._waiting
        if self._leaving:  # what was waited for has led to it, and it leaves as soon
            waiting.append(leave)
            return True
        if not waiting:  # those behind the first need not know the time
            now = self._seconds()
            quiet, self._last = now - self._last > IDLE_SECONDS, now
            if quiet and not always:
                return False
            if not self._ending:
                self._ending = True
                self._at_end(self._end)
        elif len(waiting) >= self.most:
            self._leave()
            waiting = self._waiting
        waiting.append(leave)
        return True

    def join(self, work: Callable[[], object], always: bool = False) -> bool:
        """As L{wait}, for work that messages may come of: it makes no message wait that follows none."""
        if not (always or self._waiting or self._leaving) and self._seconds() - self._last > IDLE_SECONDS:
            return False
        return self.wait(work, True)

    def on_held(self, count: int) -> None:
        """So many are held."""
        if count == self.most:
            self._leave_held()
        else:
            self._at_end(self._leave_held)

    def _leave_held(self) -> None:
        if self._preceding:
            self._precede()
        held = self.held.copy()
        self.held.clear()
        self._last = self._seconds()
        for writer in held:
            try:
                writer.leave()
            except Exception:  # the fault of one is none of the others'
                _log.failure("What waited for the end of the turn failed.")

    def _end(self) -> None:
        self._ending = False
        self._leave()

    def _leave(self) -> None:
        self._leaving, self._last = True, self._seconds()
        while waiting := self._waiting:
            if self._preceding:
                self._precede()
            self._waiting = []
            for leave in waiting:
                try:
                    leave()
                except Exception:  # the fault of one is none of the others'
                    _log.failure("What waited for the end of the turn failed.")
        self._leaving = False

    def _precede(self) -> None:
        for call in self._preceding:
            try:
                call()
            except Exception:  # what waits leaves all the same
                _log.failure("What was to be done before others leave failed.")
