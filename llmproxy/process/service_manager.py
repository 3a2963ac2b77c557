"""Tells systemd that the daemon is ready, alive and stopping: sd_notify(3), without its library."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Protocol

from twisted.internet.task import LoopingCall


class StartReporter(Protocol):
    """Whoever else waits for the daemon to have started."""

    def begin(self) -> None: ...
    def succeeded(self) -> None: ...
    def failed(self, sentence: str) -> None: ...


class ServiceManager:
    """Watches a start on behalf of C{Type=notify}, and passes on what it sees.

    Once the daemon is ready, and where the unit has C{WatchdogSec}, it says twice in that time that the reactor turns.
    Without C{NOTIFY_SOCKET} nothing is said.
    """

    def __init__(self, reporter: StartReporter, environ: Mapping[str, str], reactor: Any, pid: int) -> None:
        self._reporter = reporter
        self._address = environ.get("NOTIFY_SOCKET", "")
        self._reactor = reactor
        self._interval = _watchdog_seconds(environ, pid) / 2
        self._alive = LoopingCall(self.notify, "WATCHDOG=1")
        self._alive.clock = reactor

    def begin(self) -> None:
        self._reporter.begin()

    def succeeded(self) -> None:
        self._reporter.succeeded()
        if self._address:
            self.notify("READY=1\nSTATUS=Serving.")
            self._reactor.addSystemEventTrigger("before", "shutdown", self._stopping)
            if self._interval:
                self._alive.start(self._interval)

    def hand_over(self, pid: int) -> None:
        """From now on this process is the one to be watched; what ends here is no end of the service."""
        self.notify(f"MAINPID={pid}\nSTATUS=Serving.")
        self._address = ""
        if self._alive.running:
            self._alive.stop()

    def failed(self, sentence: str) -> None:
        self._reporter.failed(sentence)
        self.notify(f"STATUS={' '.join(sentence.split())}\nERRNO=1")

    def _stopping(self) -> None:
        # The watchdog goes on: a drain that hangs is to be noticed too.
        self.notify("STOPPING=1\nSTATUS=Draining.")

    def notify(self, state: str) -> None:
        """Send it; nobody is to fail because the service manager does not listen."""
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.setblocking(False)
            sender.sendto(state.encode("utf-8", "replace"), address)


def _watchdog_seconds(environ: Mapping[str, str], pid: int) -> float:
    """C{WATCHDOG_USEC} in seconds; C{0} where nobody watches this process."""
    if environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return 0.0
    try:
        return max(0, int(environ.get("WATCHDOG_USEC", "0"))) / 1e6
    except ValueError:
        return 0.0


def notifying(reporter: StartReporter, reactor: Any, environ: Mapping[str, str] = os.environ) -> ServiceManager:
    """The reporter, with the service manager of this process told too."""
    return ServiceManager(reporter, environ, reactor, os.getpid())
