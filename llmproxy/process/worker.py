"""A worker's side: what its supervisor gave it, and what it says to it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from typing import Any, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger

from llmproxy.base.coroutines import deferred
from llmproxy.base.peers import NoSupervisor, PeerAnswer, Peers
from llmproxy.process.link import Link, LinkLost, connect, tell_at_once

AUTO = "auto"
VARIABLE = "LLMPROXY_WORKER"  # of the environment in which a worker starts: what it was given, as JSON
PEERS_SECONDS = 4.0  # for the answers of all other workers

COUNTING_SECONDS = 2.0  # for the supervisor to say how limits stand


def worker_count(setting: int | str) -> int:
    """How many workers C{server.workers} means."""
    return len(os.sched_getaffinity(0)) if setting == AUTO else int(setting)


class PeersOverLink(Peers):
    """The other workers, asked through the supervisor."""

    def __init__(self, link: Link, number: int) -> None:
        Peers.__init__(self)
        self.number = number
        self.leads = False  # until the supervisor says so
        self._link = link

    @deferred
    async def ask(self, name: str, body: Any = None) -> list[Any]:
        """Nobody answers where the supervisor is gone: this process then speaks for itself."""
        try:
            return list(await self._link.ask("peers", {"name": name, "body": body}, PEERS_SECONDS))
        except LinkLost:
            return []

    def tell(self, name: str, body: Any = None) -> None:
        self._link.tell("peers", {"name": name, "body": body})

    @deferred
    async def order(self, name: str, body: Any, key: str = "") -> list[PeerAnswer]:
        try:
            answers = await self._link.ask("order", {"name": name, "body": body, "key": key}, PEERS_SECONDS)
        except LinkLost:
            return []
        return [PeerAnswer(*each) for each in answers]

    @deferred
    async def supervisor(self, name: str, body: Any = None, seconds: float = 5.0) -> Any:
        try:
            return await self._link.ask(name, body, seconds)
        except LinkLost as e:
            raise NoSupervisor(str(e)) from e

    @property
    def alone(self) -> bool:
        return False


class ControlledDaemon(Protocol):
    """What a supervisor ends by way of its worker."""

    sockets: Any
    drain_delay: float

    def cut(self) -> object: ...
    def retire(self) -> object: ...
    def leave_sockets(self) -> object: ...


class Worker:
    """This process, as one of several that a supervisor has started.

    @ivar number: Its place among them, from 1.
    @ivar sockets: The descriptors it listens on, by their endpoint.
    @ivar drain: Called to end once the requests under way are over, C{cut}: to end without them, C{retire}: to say
        that it is about to end, C{leave_sockets}: before the end where others go on listening.
    """

    _log = Logger()

    def __init__(self, reactor: Any, number: int, descriptor: int, sockets: MutableMapping[str, int]) -> None:
        """
        @param descriptor: The socket to the supervisor.
        """
        self.number = number
        self.sockets = sockets
        self.drain: Callable[[], object] = lambda: None
        self.cut: Callable[[], object] = lambda: None
        self.retire: Callable[[], object] = lambda: None
        self.leave_sockets: Callable[[], object] = lambda: None
        self.link = Link(reactor, self._perform, self._orphaned)
        self.peers = PeersOverLink(self.link, number)
        self._reactor = reactor
        self._descriptor = descriptor
        self._draining = False

    def control(self, daemon: ControlledDaemon, drain: Callable[[], object]) -> None:
        """Have the supervisor end this daemon, whose sockets it has opened."""
        daemon.sockets = self.sockets
        daemon.drain_delay = 0.0  # the supervisor sees to that
        self.drain, self.cut, self.retire = drain, daemon.cut, daemon.retire
        self.leave_sockets = daemon.leave_sockets

    def connect(self) -> None:
        """Begin to hear the supervisor."""
        connect(self._reactor, self._descriptor, self.link)

    def refuse(self, sentence: str) -> None:
        """Say why this process does not even begin to start."""
        tell_at_once(self._descriptor, "failed", sentence)

    def exchange(self, settled: list[Any], wanted: list[Any]) -> Deferred[list[Any]]:
        """Have the supervisor count, as L{SharedCounters<llmproxy.limits.counters.shared.SharedCounters>} does."""
        if wanted:
            return self.link.ask("limits", [settled, wanted], COUNTING_SECONDS)
        self.link.tell("limits", [settled, wanted])
        return succeed([])

    def _perform(self, name: str, body: Any) -> Any:
        if name == "drain":
            if body:
                self.leave_sockets()
            self._end()
            return None
        if name == "retire":
            self.retire()
            return None
        if name == "lead":
            self.peers.leads = bool(body)
            return None
        if name == "cut":
            self._end()
            self.cut()
            return None
        return self.peers.perform(name, body)

    def _end(self) -> None:
        if not self._draining:
            self._draining = True
            with suppress(ReactorNotRunning):  # it had been told to end already
                self.drain()

    def _orphaned(self) -> None:
        if not self._draining:
            self._log.error("The supervisor is gone: this worker ends once its requests are over.")
        self._end()

    # The daemon's start observer

    def begin(self) -> None:
        self.connect()

    def succeeded(self) -> None:
        self.link.tell("ready")

    def failed(self, sentence: str) -> None:
        self.link.tell("failed", sentence)


def appointed(reactor: Any, environ: MutableMapping[str, str]) -> Worker | None:
    """The worker that this process was started as; its variable is taken out. C{None} where it is none."""
    given = environ.pop(VARIABLE, "")
    if not given:
        return None
    os.setpgid(0, 0)  # what the terminal sends is for the supervisor
    terms = json.loads(given)
    return Worker(reactor, int(terms["number"]), int(terms["link"]), dict(terms["sockets"]))


__all__ = ["VARIABLE", "PeersOverLink", "Worker", "appointed"]
