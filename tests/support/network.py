"""A reactor in memory: connections with finite buffers on one fake clock, for code that is handed its reactor.

Nothing moves by itself: L{Network.flow} plays the reactor until nothing is left to do, without time passing; only
L{Network.pass_time} lets time pass. So what a test sees after C{flow} has happened without any timer.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone, UserError
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure

from tests.support.transport import Link, RecordingProtocol

CAPACITY = 16 * 1024  # bytes that may be on their way in each direction


class Dial:
    """An attempt to connect; an C{IConnector}, as far as endpoints ask for one."""

    def __init__(self, network: Network, where: tuple[str, int], factory: Any, timeout: float | None) -> None:
        self.where = where
        self.factory = factory
        self.over = False
        self._timer: IDelayedCall | None = None
        if timeout:
            self._timer = network.callLater(timeout, self.fail, ConnectTimeout())

    def end(self) -> None:
        """It has led to something."""
        self.over = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def fail(self, error: Exception) -> None:
        if not self.over:
            self.end()
            self.factory.clientConnectionFailed(self, Failure(error))

    def stopConnecting(self) -> None:
        self.fail(UserError())

    disconnect = stopConnecting

    def getDestination(self) -> IPv4Address:
        return IPv4Address("TCP", *self.where)


class Network(MemoryReactorClock):
    """A reactor that connects to C{servers}, which are factories by host and port.

    Where there is none, a connection is refused; where it is C{None}, nothing ever comes back.

    @ivar dialled: How many attempts to connect there were.
    """

    def __init__(self) -> None:
        super().__init__()
        self.servers: dict[tuple[str, int], Factory | None] = {}
        self.dialled = 0
        self._links: list[Link] = []
        self._dials: list[Dial] = []

    def connectTCP(
        self, host: str, port: int, factory: Any, timeout: float | None = 30, bindAddress: object = None
    ) -> Any:
        self.dialled += 1
        dial = Dial(self, (host, port), factory, timeout)
        self._dials.append(dial)
        factory.startedConnecting(dial)
        return dial

    def join(self, server: Any, client: Any, address: str = "192.0.2.1") -> None:
        """Connect two protocols that have no transport yet."""
        self._links.append(Link(server, client, capacity=CAPACITY, address=address))

    def flow(self) -> None:
        """Let everything happen that can happen without time passing."""
        while self._connect() or self._move():
            pass
        self._links = [link for link in self._links if link.near.connected or link.far.connected]

    def pass_time(self, seconds: float) -> None:
        """Let time pass, and everything happen that it brings about."""
        self.flow()
        self.advance(seconds)
        self.flow()

    def _move(self) -> bool:
        moved = False
        for link in list(self._links):
            for end in (link.near, link.far):
                moved = end.step() or moved
        return moved

    def _connect(self) -> bool:
        settled = False
        waiting, self._dials = [dial for dial in self._dials if not dial.over], []
        for dial in waiting:
            if dial.where not in self.servers:
                dial.fail(Refused())
            elif (server := self.servers[dial.where]) is None:
                self._dials.append(dial)
                continue
            else:
                dial.end()
                address = dial.getDestination()
                self.join(server.buildProtocol(address), dial.factory.buildProtocol(address))
            settled = True
        return settled


class Peer(RecordingProtocol):
    """Somebody who says what the test tells, and keeps what comes."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self._network = network

    @property
    def end(self) -> str:
        """How the connection ended: C{closed} or C{reset}; C{""} while it lasts."""
        if self.lost is None:
            return ""
        return "closed" if self.lost.check(ConnectionDone) else "reset"

    @property
    def unsent(self) -> int:
        """Bytes that it would say, but nobody takes."""
        return len(self.transport.unsent)

    def send(self, data: bytes) -> None:
        """Say it, and let everything happen that comes of it."""
        self.transport.write(data)
        self._network.flow()

    def take(self) -> bytes:
        """What has come since the last time."""
        taken = bytes(self.received)
        self.received.clear()
        return taken

    def pause(self) -> None:
        """Read nothing for now."""
        self.transport.pauseProducing()

    def resume(self) -> None:
        self.transport.resumeProducing()
        self._network.flow()

    def sip(self, size: int) -> None:
        """Read so many bytes and no more."""
        self.received += self.transport.inbox[:size]
        del self.transport.inbox[:size]
        self._network.flow()

    def close(self) -> None:
        """End it in good order."""
        self.transport.loseConnection()
        self._network.flow()

    def reset(self) -> None:
        """End it at once."""
        self.transport.abortConnection()
        self._network.flow()


class PeerFactory(Factory):
    """Makes a L{Peer} of everybody who connects."""

    noisy = False

    def __init__(self, network: Network) -> None:
        self._network = network
        self.peers: list[Peer] = []

    def buildProtocol(self, addr: object) -> Peer:
        self.peers.append(Peer(self._network))
        return self.peers[-1]

    @property
    def last(self) -> Peer:
        """The latest of them."""
        return self.peers[-1]
