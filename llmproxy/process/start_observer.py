"""Who is told how a start went, and the end of one that failed."""

from __future__ import annotations

import atexit
import os
from typing import Any, Protocol

from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

_log = Logger()


class StartObserver(Protocol):
    """Whoever waits for the daemon to have started."""

    def begin(self) -> None: ...
    def succeeded(self) -> None: ...
    def failed(self, sentence: str) -> None: ...


def cannot_start(reactor: Any, reason: str, failure: Failure, observer: StartObserver | None) -> None:
    """Say why, and end the process with status 1."""
    _log.critical("Cannot start: {reason}", reason=reason)
    _log.failure("That came so:", failure, level=LogLevel.debug)
    # twistd would end as if all had been well. What the observer registers comes before that.
    atexit.register(os._exit, 1)
    if observer is not None:
        observer.failed(reason)
    reactor.callWhenRunning(reactor.stop)
