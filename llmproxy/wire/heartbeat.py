"""Keeps a silent stream of events alive for whatever lies between here and the client: with comments between events.

HTML Standard, section 9.2.6: a line that begins with a colon is a comment, which clients ignore, and is meant for
just this.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

COMMENT = b": heartbeat\n\n"
# Line ends are LF, CR LF or CR (section 9.2.5), and an empty line ends an event.
_EVENT_ENDS = (b"\n\n", b"\n\r\n", b"\r\r", b"\r\r\n")
_MAX_END_BYTES = 4


class Heartbeat:
    """Writes a comment whenever nothing else was written for some time, and only where no event has begun."""

    _timer: IDelayedCall | None = None

    def __init__(self, clock: IReactorTime, interval: float, write: Callable[[bytes], bool]) -> None:
        """
        @param interval: Seconds.
        @param write: Writes it to the client, or gives C{False} where that cannot be done now.
        """
        self._clock = clock
        self._interval = interval
        self._write = write
        self._last_write = clock.seconds()
        self._tail = b""  # the end of what was written; a comment is an event of its own, and changes nothing there

    def observe(self, data: bytes) -> None:
        """This was written, and is not empty."""
        self._last_write = self._clock.seconds()
        self._tail = (self._tail + data)[-_MAX_END_BYTES:] if len(data) < _MAX_END_BYTES else data[-_MAX_END_BYTES:]

    def start(self) -> None:
        self._timer = self._clock.callLater(self._interval, self._look)

    def stop(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _look(self) -> None:
        """One timer for the whole stream, set again when it fires: no chunk touches it."""
        now = self._clock.seconds()
        left = self._last_write + self._interval - now
        if left <= 0:
            left = self._interval
            if self._is_between_events() and self._write(COMMENT):
                self._last_write = now
        self._timer = self._clock.callLater(left, self._look)

    def _is_between_events(self) -> bool:
        return not self._tail or self._tail.endswith(_EVENT_ENDS)
