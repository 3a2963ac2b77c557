"""The access log: one line per finished request."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from llmproxy.base.background import Task
from llmproxy.brief_record import BriefRecord


class AccessLog(Service):
    """Collects lines and writes them together, so that a request costs no system call of its own.

    @ivar lines: How many lines were handed on.
    """

    name = "access"

    def __init__(
        self,
        write: Callable[[Sequence[BriefRecord]], object],
        clock: IReactorTime,
        *,
        interval: float = 0.2,
        batch: int = 512,
    ) -> None:
        """
        @param write: Writes a line for each of these, or raises before it has written any.
        @param interval: Seconds a line waits for company at most.
        @param batch: How many lines are written at once at most.
        """
        self._write = write
        self._clock = clock
        self._interval = interval
        self._batch = batch
        self._waiting: list[BriefRecord] = []
        self._timer: IDelayedCall | None = None
        self._stopped = False
        self._task = Task("access_log", clock)
        self.tasks = (self._task,)
        self.lines = 0

    def observe_all(self, records: Sequence[BriefRecord]) -> None:
        """Write lines for these requests, soon."""
        self._waiting += records
        if self._stopped or len(self._waiting) >= self._batch:
            self.flush()
        elif self._timer is None:
            self._timer = self._clock.callLater(self._interval, self.flush)

    def flush(self) -> None:
        """Write now what is waiting; never fails, for a request may be what makes it leave."""
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        try:
            self._write(waiting)
            self.lines += len(waiting)
            self._task.worked()
        except Exception:
            self._write_each(waiting)

    def _write_each(self, waiting: Sequence[BriefRecord]) -> None:
        """One of them has no line, it seems, which takes none of the others."""
        for record in waiting:
            try:
                self._write([record])
                self.lines += 1
            except Exception:
                self._task.failed()

    def startService(self) -> None:
        self._stopped = False
        Service.startService(self)

    def stopService(self) -> None:
        Service.stopService(self)
        self._stopped = True  # a request that ends while the process shuts down has its line all the same
        self.flush()
