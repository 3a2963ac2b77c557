"""One worker as its supervisor sees it: a process, a link to it, and what is known of how it does."""

from __future__ import annotations

import json
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from llmproxy.process.link import Link, connect
from llmproxy.process.worker import VARIABLE

_RUN = "from twisted.scripts.twistd import run; run()"
_LINK = 3
_FIRST_SOCKET = 4


class WorkerFailed(Exception):
    """It ended before it was ready."""


class WorkerProcess(ProcessProtocol):
    """A process that serves.

    @ivar number: Its place; C{name} tells it from others that had the place before.
    @ivar state: C{starting}, C{ready}, C{draining} or C{ended}.
    @ivar status: How it has ended, in words; C{expected}: whether it had been told to.
    """

    def __init__(
        self,
        reactor: Any,
        number: int,
        name: str,
        perform: Callable[[WorkerProcess, str, Any], Any],
        on_end: Callable[[WorkerProcess], object],
    ) -> None:
        self.number = number
        self.name = name
        self.state = "starting"
        self.status = ""
        self.expected = False
        self.started_at = reactor.seconds()
        self._ready: list[Deferred[None]] = []
        self._ended: list[Deferred[None]] = []
        self.pid = 0
        self._outcome: str | None = None  # C{""}: it became ready
        self._reactor = reactor
        self._perform_for = perform
        self._on_end = on_end
        self._sentence = ""
        self.link = Link(reactor, self._perform)

    def spawn(self, arguments: Sequence[str], sockets: Mapping[str, int], environ: Mapping[str, str]) -> None:
        """Start it, with the arguments of C{twistd}; L{OSError} where there can be no process."""
        ours, theirs = socket.socketpair()
        places = {endpoint: _FIRST_SOCKET + place for place, endpoint in enumerate(sockets)}
        given = {"number": self.number, "link": _LINK, "sockets": places}
        children = {0: 0, 1: 1, 2: 2, _LINK: theirs.fileno()}
        children |= {places[endpoint]: descriptor for endpoint, descriptor in sockets.items()}
        command = [sys.executable, "-P", "-c", _RUN, *arguments]
        try:
            self._reactor.spawnProcess(
                self, sys.executable, command, env={**environ, VARIABLE: json.dumps(given)}, childFDs=children
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self.pid = getattr(self.transport, "pid", 0) or 0
        connect(self._reactor, ours.detach(), self.link)

    def when_ready(self) -> Deferred[None]:
        """Fire when it serves; L{WorkerFailed} where it never does."""
        return _of(self._ready, self._outcome)

    def when_ended(self) -> Deferred[None]:
        """Fire when the process has ended."""
        return _of(self._ended, "" if self.state == "ended" else None)

    def drain(self, *, replaced: bool = False) -> None:
        """Let it end once its requests are over.

        @param replaced: Whether others go on listening where it does.
        """
        if self.state == "ready":
            self.state = "draining"
            self.link.tell("drain", replaced)
        elif self.state == "starting":
            self.state = "draining"
            self.signal("TERM")  # it may not hear the link yet

    def cut(self) -> None:
        """Let it end now."""
        self.drain()
        self.link.tell("cut")

    def signal(self, name: str) -> None:
        """Send it this signal, such as C{KILL}, unless it has ended."""
        with suppress(ProcessExitedAlready, ProcessLookupError):
            if self.transport is not None:
                self.transport.signalProcess(name)

    def _perform(self, name: str, body: Any) -> Any:
        if name == "ready":
            if self.state == "starting":
                self.state = "ready"
            self._decided("")
            return None
        if name == "failed":
            self._sentence = str(body)
            return None
        return self._perform_for(self, name, body)

    def _decided(self, outcome: str) -> None:
        if self._outcome is None:
            self._outcome = outcome
            _fire(self._ready, outcome)

    # What Twisted calls

    def processEnded(self, reason: Failure) -> None:
        value: Any = reason.value
        if getattr(value, "signal", None):
            self.status = f"by {signal.Signals(value.signal).name}"
        else:
            self.status = f"with status {getattr(value, 'exitCode', 0) or 0}"
        if self._sentence:
            self.status += f" ({' '.join(self._sentence.split())})"
        self.expected, self.state = self.state == "draining", "ended"
        self.link.close()
        self._decided(self._sentence or f"A worker ended {self.status} before it was ready.")
        self._on_end(self)
        _fire(self._ended, "")


def _of(waiting: list[Deferred[None]], outcome: str | None) -> Deferred[None]:
    answer: Deferred[None] = Deferred(lambda d: waiting.remove(d) if d in waiting else None)
    waiting.append(answer)
    if outcome is not None:
        _fire(waiting, outcome)
    return answer


def _fire(waiting: list[Deferred[None]], problem: str) -> None:
    for each in waiting[:]:
        waiting.remove(each)
        if problem:
            each.errback(WorkerFailed(problem))
        else:
            each.callback(None)
