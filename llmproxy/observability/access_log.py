"""The access log: one line per finished request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from llmproxy.base.attribution import as_shown
from llmproxy.base.background import Task
from llmproxy.base.timestamps import rfc3339
from llmproxy.model import RequestRecord


class AccessLog(Service):
    """Collects lines and writes them together, so that a request costs no system call of its own.

    @ivar lines: How many lines were handed on.
    """

    name = "access"

    def __init__(
        self,
        write: Callable[[Sequence[dict[str, Any]]], object],
        clock: IReactorTime,
        *,
        interval: float = 0.2,
        batch: int = 512,
    ) -> None:
        """
        @param write: Where the lines go: C{LogOutput.write}, the output that the logs have too.
        @param interval: Seconds a line waits for company at most.
        @param batch: How many lines are written at once at most.
        """
        self._write = write
        self._clock = clock
        self._interval = interval
        self._batch = batch
        self._waiting: list[RequestRecord] = []
        self._timer: IDelayedCall | None = None
        self._stopped = False
        self._task = Task("access_log", clock)
        self.tasks = (self._task,)
        self.lines = 0

    def observe(self, record: RequestRecord) -> None:
        """Write a line for this request, soon."""
        self._waiting.append(record)
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
            self._write([line(record) for record in waiting])
            self.lines += len(waiting)
            self._task.worked()
        except Exception:
            self._task.failed()

    def startService(self) -> None:
        self._stopped = False
        Service.startService(self)

    def stopService(self) -> None:
        Service.stopService(self)
        self._stopped = True  # a request that ends while the process shuts down has its line all the same
        self.flush()


def line(record: RequestRecord) -> dict[str, Any]:
    """The fields of one line: when the request ended, and everything known of it; nothing that is empty."""
    shown: dict[str, Any] = {
        "ts": rfc3339(record.started_at + record.duration),
        "level": "info",
        "logger": "access",
        "msg": "request",
    }
    known = zip(RequestRecord._fields, record, strict=True)
    shown.update({name: value for name, value in known if value or value == 0})  # neither None nor empty
    del shown["started_at"]
    if record.attribution:
        shown["attribution"] = as_shown(record.attribution)
    return shown
