"""What the signals of operators do: reload, reopen, drain, cut. No signal ends the process with its streams."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger

_log = Logger()


class Signals:
    """Takes the process's signals, once the reactor runs, and acts on them in the reactor's turn.

    C{SIGHUP} reloads the settings, C{SIGUSR1} opens log files anew, C{SIGTERM} and C{SIGINT} drain, and cut what is
    left when they come a second time. After a drain the process ends with status 0. C{SIGUSR2} asks for new code; a
    worker, which cannot have it without its supervisor, says so in the log: the kernel's default would end the process.
    """

    def __init__(
        self,
        reactor: Any,
        *,
        reload: Callable[[], object],
        reopen: Callable[[], object],
        cut: Callable[[], object],
        roll: Callable[[], object] | None = None,
    ) -> None:
        """
        @param roll: Replaces processes by fresh ones, where that can be done.
        @param cut: Ends what a drain is waiting for.
        """
        self._reactor = reactor
        self._actions = {signal.SIGHUP: reload, signal.SIGUSR1: reopen}
        if roll is not None:
            self._actions[signal.SIGUSR2] = roll
        self._cut = cut
        self._stopping = False

    def install(self) -> None:
        """Begin, as soon as the reactor runs: it installs handlers of its own when it starts."""
        self._reactor.callWhenRunning(self._install)

    def _install(self) -> None:
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._received)

    def _received(self, number: int, frame: object) -> None:
        self._reactor.callFromThread(self._act, signal.Signals(number))

    def _act(self, number: signal.Signals) -> None:
        action = self._actions.get(number)
        if action is not None:
            _log.info("Received {signal}.", signal=number.name)
            action()
        elif number == signal.SIGUSR2:
            _log.warn("Received {signal}: nothing is done. It is for the supervisor.", signal=number.name)
        elif self._stopping:
            _log.warn("Received {signal} again: cutting what is still open.", signal=number.name)
            self._cut()
        else:
            _log.info("Received {signal}: draining.", signal=number.name)
            self._stopping = True
            with suppress(ReactorNotRunning):  # it drains already, since another process has taken its place
                self._reactor.stop()
