"""The process that takes the place of this one: started with its listening sockets, and not before its turn its child.

It is started through a process that ends at once. So it belongs to whoever adopts orphans, such as the service
manager, which notices its end even while the process before it still has requests to finish.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from llmproxy.process.link import Link, connect, tell_at_once

VARIABLE = "LLMPROXY_SUCCESSOR"  # of the environment in which it starts: what it was given, as JSON
LINK = 3
_FIRST_SOCKET = 4

# What it runs first. It needs nothing of the new code: whatever is wrong with that is to be said through the link.
_RUN = f"""\
import json, os, struct
def say(name, body):
    text = json.dumps({{"do": name, "with": body}}).encode()
    os.write({LINK}, struct.pack("!I", len(text)) + text)
if os.fork():
    os._exit(0)
say("pid", os.getpid())
try:
    from twisted.scripts.twistd import run
    run()
except SystemExit as e:
    if e.code:
        try:
            say("failed", str(e.code) if isinstance(e.code, str) else "")
        except OSError:
            pass
    raise
except BaseException as e:
    say("failed", type(e).__name__ + ": " + str(e))
    raise
"""


class SuccessorFailed(Exception):
    """It ended before it was ready, or could not be started."""


class Successor(ProcessProtocol):
    """It, as the process sees it whose place it takes.

    @ivar pid: Its process id; C{0} until it has said so.
    """

    def __init__(self, reactor: Any) -> None:
        self.pid = 0
        self.ready: Deferred[None] = Deferred()
        self._decided = False
        self._sentence = ""
        self._reactor = reactor
        self.link = Link(reactor, self._perform, self._lost)

    def spawn(
        self, arguments: Sequence[str], sockets: Mapping[str, int], environ: Mapping[str, str], pid_file: str = ""
    ) -> None:
        """Start it, with the arguments of C{twistd}; L{SuccessorFailed} where there can be no process."""
        ours, theirs = socket.socketpair()
        places = {endpoint: _FIRST_SOCKET + place for place, endpoint in enumerate(sockets)}
        children = {0: 0, 1: 1, 2: 2, LINK: theirs.fileno()}
        children |= {places[endpoint]: descriptor for endpoint, descriptor in sockets.items()}
        inherited = {name: text for name, text in environ.items() if name != "WATCHDOG_PID"}  # it is to be watched then
        given = {VARIABLE: json.dumps({"link": LINK, "sockets": places, "pid_file": pid_file})}
        command = [sys.executable, "-P", "-c", _RUN, *arguments]
        try:
            self._reactor.spawnProcess(self, sys.executable, command, env=inherited | given, childFDs=children)
        except OSError as e:
            ours.close()
            raise SuccessorFailed(f"It could not be started: {e.strerror or e}.") from e
        finally:
            theirs.close()
        connect(self._reactor, ours.detach(), self.link)

    def kill(self) -> None:
        """End it at once, if there is one."""
        if self.pid:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        self.link.close()

    def _perform(self, name: str, body: Any) -> None:
        if name == "pid":
            self.pid = int(body)
        elif name == "failed":
            self._sentence = self._sentence or str(body)
        elif name == "ready" and not self._decided:
            self._decided = True
            self.ready.callback(None)

    def _lost(self) -> None:
        if not self._decided:
            self._decided = True
            self.ready.errback(SuccessorFailed(self._sentence or "It ended before it was ready."))

    def processEnded(self, reason: Failure) -> None:
        """The process in between has ended; the link tells how it is with the successor."""


class Predecessor:
    """The process whose place this one is to take, as this one sees it.

    Once this process is ready, it says so; it goes on when the other one has told it to, or has gone by then. If the
    other one goes earlier, this one ends.

    @ivar sockets: The descriptors it listens on, by their endpoint.
    @ivar pid_file: The file that is to name this process then; C{""}: none.
    @ivar end: Called to end, C{take_over}: to go on alone.
    """

    def __init__(self, reactor: Any, descriptor: int, sockets: Mapping[str, int], pid_file: str) -> None:
        """
        @param descriptor: The socket to it.
        """
        self.sockets = dict(sockets)
        self.pid_file = pid_file
        self.end: Callable[[], object] = lambda: None
        self.take_over: Callable[[], object] = lambda: None
        self._reactor = reactor
        self._descriptor = descriptor
        self._ready = self._over = False
        self.link = Link(reactor, self._perform, self._lost)

    def refuse(self, sentence: str) -> None:
        """Say why this process does not even begin to start."""
        tell_at_once(self._descriptor, "failed", sentence)

    def _perform(self, name: str, body: Any) -> None:
        if name == "take over":
            self._over = True
            self.take_over()

    def _lost(self) -> None:
        if self._over:
            return
        self._over = True
        if self._ready:
            self.take_over()  # it went in this very moment: better this process than none
        else:
            self.end()

    # The daemon's start observer

    def begin(self) -> None:
        connect(self._reactor, self._descriptor, self.link)

    def succeeded(self) -> None:
        self._ready = True
        self.link.tell("ready")

    def failed(self, sentence: str) -> None:
        self.link.tell("failed", sentence)


def predecessor(reactor: Any, environ: MutableMapping[str, str]) -> Predecessor | None:
    """The process that has started this one to take its place; its variable is taken out. C{None} where none has."""
    given = environ.pop(VARIABLE, "")
    if not given:
        return None
    terms = json.loads(given)
    return Predecessor(reactor, int(terms["link"]), terms["sockets"], str(terms["pid_file"]))
