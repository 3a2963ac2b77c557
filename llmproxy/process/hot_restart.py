"""New code without a lost connection, where one process serves: it starts its successor, and drains once that is ready.

As nginx does on the same signal, and Envoy calls it. Where a supervisor rolls its workers this is not needed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from llmproxy.base.coroutines import deferred, within
from llmproxy.config.load import SettingsError
from llmproxy.instruments import Counter, HealthCheck, Instrument
from llmproxy.interfaces import IHealthChecked, IInstrumented
from llmproxy.process.start_failures import sentence
from llmproxy.process.successor import Predecessor, Successor, SuccessorFailed

START_SECONDS = 120.0  # for the successor to be ready: it may have to wait for its database
FIRST_SECONDS = 10.0  # for the successor to say that it has taken over

_log = Logger()


class Serving(Protocol):
    """The daemon, as far as it is handed over."""

    @property
    def is_running(self) -> bool: ...
    @property
    def descriptors_of_ports(self) -> Mapping[str, int]: ...
    def leave_sockets(self) -> None: ...
    def own_sockets(self) -> None: ...


class PassedOn(Protocol):
    """The pid file."""

    @property
    def path(self) -> str: ...
    @property
    def problem(self) -> str: ...
    def leave(self) -> None: ...
    def take(self, path: str) -> None: ...


class Manager(Protocol):
    """What tells the service manager."""

    def succeeded(self) -> None: ...
    def hand_over(self, pid: int) -> None: ...


@implementer(IHealthChecked, IInstrumented)
class HotRestart:
    """Has a fresh process serve in the place of this one, with program and settings as they are on the disk now.

    Where that cannot be, nothing changes: why is in the log, and that it is so on the ready page and in a figure.

    @ivar failures: How often it could not be.
    """

    def __init__(
        self,
        reactor: Any,
        *,
        load: Callable[[], str],
        arguments: Sequence[str],
        environ: Mapping[str, str],
        pid_file: PassedOn,
        manager: Manager,
        pid: Callable[[], int],
        stop: Callable[[], object],
    ) -> None:
        """
        @param load: Reads the settings; gives why a fresh process cannot serve by them, C{""} if it can.
        @param arguments: Those of C{twistd} with which it is started.
        @param pid: The number of this process, which twistd changes when it daemonises.
        @param stop: Has this process end once its requests are over.
        """
        self.failures = 0
        self._reactor = reactor
        self._daemon: Serving | None = None
        self._load = load
        self._arguments = arguments
        self._environ = environ
        self._pid_file = pid_file
        self._manager = manager
        self._pid = pid
        self._stop = stop
        self._has_failed = False
        self._successor: Successor | None = None

    def attach(self, daemon: Serving) -> None:
        """This is what serves."""
        self._daemon = daemon

    def instruments(self) -> Iterator[Instrument]:
        yield Counter("roll_failures", "Times that new code was asked for, and could not take over.",
                      lambda: self.failures)  # fmt: skip

    def health_checks(self) -> Iterator[HealthCheck]:
        yield HealthCheck("roll", lambda: "not rolled (see the log)" if self._has_failed else "ok")

    @deferred
    async def roll(self) -> bool:
        """Whether a fresh process serves; this one then ends when its requests are over."""
        daemon = self._daemon
        if daemon is None:
            return False
        if self._successor is not None:
            _log.warn("A process that is to take the place of this one starts already, or has.")
            return False
        problem = self._obstacle(daemon)
        if problem:
            return self._not_rolled(problem)
        self._successor = successor = Successor(self._reactor)
        try:
            successor.spawn(self._arguments, daemon.descriptors_of_ports, self._environ, self._pid_file.path)
            late = SuccessorFailed(f"It was not ready after {START_SECONDS:g} s.")
            await within(START_SECONDS, self._reactor, successor.ready, late)
            if not daemon.is_running:
                raise SuccessorFailed("This one was told to end meanwhile.")
        except SuccessorFailed as e:
            successor.kill()
            self._successor = None
            return self._not_rolled(f"The new process did not start: {e}")
        self._hand_over(successor, daemon)
        return True

    def _obstacle(self, daemon: Serving) -> str:
        if self._pid() == 1:
            return "The first process of a container cannot be replaced, as the container ends with it: set " \
                   "server.workers: 2 to have workers rolled, or replace the container."  # fmt: skip
        if not daemon.is_running:
            return "It has not started yet, or ends already."
        try:
            return self._pid_file.problem or self._load()
        except SettingsError as e:
            return str(e)
        except Exception as e:  # such as a plugin's; whatever it is, this process goes on
            return sentence(e)

    def _hand_over(self, successor: Successor, daemon: Serving) -> None:
        self._has_failed = False
        _log.info("Rolled: process {pid} serves, this one ends once its requests are over.", pid=successor.pid)
        daemon.leave_sockets()
        self._pid_file.leave()
        self._manager.hand_over(successor.pid)
        over: Deferred[Any] = successor.link.ask("take over", None, FIRST_SECONDS)
        over.addErrback(lambda failure: _log.error("Process {pid} did not take over: {why}", pid=successor.pid,
                                                   why=failure.getErrorMessage()))  # fmt: skip
        self._stop()

    def _not_rolled(self, reason: str) -> bool:
        self.failures += 1
        self._has_failed = True
        _log.error("Not rolled: {reason}; this process goes on.", reason=reason.rstrip("."))
        return False


def succeed(predecessor: Predecessor, daemon: Serving, pid_file: PassedOn, manager: Manager) -> None:
    """Have what the other process leaves be this one's, once it does."""

    def take_over() -> None:
        daemon.own_sockets()
        pid_file.take(predecessor.pid_file)
        manager.succeeded()
        _log.info("Took over as process {pid}.", pid=os.getpid())

    predecessor.take_over = take_over
