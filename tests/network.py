"""A network in memory: connections with finite buffers on one fake clock, for code that has a reactor handed to it.

Nothing moves by itself: L{Network.flow} plays the reactor until nothing is left to do, without time passing, and
C{advance} lets time pass. What a test sees without C{advance} has happened in the turn of its cause.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import (
    ConnectionAborted,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
    UserError,
)
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.interfaces import IDelayedCall, IHalfCloseableProtocol, ITCPTransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from zope.interface import implementer

CAPACITY = 16 * 1024  # bytes under way in one direction, as in the sockets of both ends
HIGH = 64 * 1024  # bytes that wait to leave, beyond which a producer is told to pause, as in Twisted


@implementer(ITCPTransport)
class End:
    """One end of a connection: Twisted's TCP transport, down to who is told what and when.

    @ivar unsent: Written, but not under way yet. It may grow without bounds, as Twisted's does.
    @ivar flight: Under way to the other end, which has not read it.
    @ivar lost: Whether the protocol here has been told that the connection is lost.
    @ivar aborted: Whether this end has torn the connection down.
    """

    disconnecting = False
    peer: End

    def __init__(self, here: tuple[str, int], there: tuple[str, int]) -> None:
        self._addresses = (IPv4Address("TCP", *here), IPv4Address("TCP", *there))
        self.unsent = bytearray()
        self.flight = bytearray()
        self.lost = self.aborted = False
        self.protocol: Any = None
        self._producer: Any = None
        self._held = False
        self._reading = True
        self._shutting = False
        self._finished = False  # our end of the stream is under way
        self._seen_end = False
        self._reset = False

    # What the protocol calls

    def write(self, data: bytes) -> None:
        if self.lost or self.aborted or self._shutting or not data:
            return
        self.unsent += data
        if self._producer is not None and not self._held and len(self.unsent) > HIGH:
            self._held = True
            self._producer.pauseProducing()

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        self.disconnecting = True

    def loseWriteConnection(self) -> None:
        self._shutting = True

    def abortConnection(self) -> None:
        if not self.lost and not self.aborted:
            self.aborted = True
            self.unsent.clear()
            self.peer._reset = True

    def pauseProducing(self) -> None:
        self._reading = False

    def resumeProducing(self) -> None:
        self._reading = True

    def stopProducing(self) -> None:
        self.loseConnection()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if self._producer is not None:
            raise RuntimeError("There is a producer already.")
        if self.lost:
            producer.stopProducing()
            return
        self._producer = producer

    def unregisterProducer(self) -> None:
        self._producer = None
        self._held = False

    def getPeer(self) -> IPv4Address:
        return self._addresses[1]

    def getHost(self) -> IPv4Address:
        return self._addresses[0]

    def setTcpNoDelay(self, enabled: bool) -> None: ...

    def getTcpNoDelay(self) -> bool:
        return True

    def setTcpKeepAlive(self, enabled: bool) -> None: ...

    def getTcpKeepAlive(self) -> bool:
        return False

    def peer_left(self, *, half: bool) -> bool:
        """What the kernel can tell of the other end where nothing is read."""
        return self._reset or (half and self.peer._finished)

    # What the network calls

    def step(self) -> bool:
        """One round of the reactor for this end; whether anything has happened."""
        if self.lost:
            return False
        if self.aborted:
            self._lose(ConnectionAborted())
            return True
        sent = self._send()
        return self._receive() or sent

    def _send(self) -> bool:
        if self.unsent:
            if self.peer.lost and not self._reset:  # nobody is there: the other end's kernel says so
                self._reset = True
                return True
            data = bytes(self.unsent[: max(CAPACITY - len(self.flight), 0)])
            del self.unsent[: len(data)]
            self.flight += data
            return bool(data)
        if self._held:
            self._held = False
            self._producer.resumeProducing()
        elif self.disconnecting:
            self._finished = True
            self._lose(ConnectionDone())
        elif self._shutting and not self._finished:
            self._finished = True
            half = IHalfCloseableProtocol(self.protocol, None)
            if half is not None:
                half.writeConnectionLost()
        else:
            return False
        return True

    def _receive(self) -> bool:
        if self.lost or self.aborted:
            return False
        reading = self._reading and not self.disconnecting and not self._seen_end
        if reading and self.peer.flight:
            data = bytes(self.peer.flight)
            self.peer.flight.clear()
            self.protocol.dataReceived(data)
            return True
        if self._reset and (reading or self.unsent or self.disconnecting):
            self._lose(ConnectionLost())
            return True
        if reading and self.peer._finished:
            self._seen_end = True
            half = IHalfCloseableProtocol(self.protocol, None)
            if half is None:
                self._finished = True
                self._lose(ConnectionDone())
            else:
                half.readConnectionLost()
            return True
        return False

    def _lose(self, reason: Exception) -> None:
        self.lost = True
        self.unsent.clear()
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()
        self.protocol.connectionLost(Failure(reason))


class Dial:
    """An attempt to connect; an C{IConnector}, as far as endpoints ask for one."""

    def __init__(self, network: Network, where: tuple[str, int], factory: Any, timeout: float | None) -> None:
        self.where = where
        self.factory = factory
        self._timer: IDelayedCall | None = None
        if timeout:
            self._timer = network.callLater(timeout, self.fail, ConnectTimeout())
        self.over = False

    def fail(self, error: Exception) -> None:
        if self.end():
            self.factory.clientConnectionFailed(self, Failure(error))

    def end(self) -> bool:
        if self.over:
            return False
        self.over = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        return True

    def stopConnecting(self) -> None:
        self.fail(UserError())

    def disconnect(self) -> None:
        self.stopConnecting()

    def getDestination(self) -> IPv4Address:
        return IPv4Address("TCP", *self.where)


class Network(MemoryReactorClock):
    """A reactor that connects to C{servers}, by host and port.

    Where there is none, a connection is refused; where C{None} stands for one, nothing ever comes back.

    @ivar dialled: Attempts to connect so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.servers: dict[tuple[str, int], Any] = {}
        self.dialled = 0
        self.ends: list[End] = []
        self._dials: list[Dial] = []
        self._ports = 40_000

    def connectTCP(
        self, host: str, port: int, factory: Any, timeout: float | None = 30, bindAddress: object = None
    ) -> Any:
        self.dialled += 1
        dial = Dial(self, (host, port), factory, timeout)
        self._dials.append(dial)
        factory.startedConnecting(dial)
        return dial

    def join(self, client: Any, server: Any, where: tuple[str, int], address: str = "192.0.2.1") -> None:
        """Connect two protocols that have no transport yet."""
        self._ports += 1
        near, far = End((address, self._ports), where), End(where, (address, self._ports))
        near.peer, far.peer = far, near
        near.protocol, far.protocol = client, server
        self.ends += [near, far]
        server.makeConnection(far)
        client.makeConnection(near)

    def flow(self) -> None:
        """Let everything happen that can happen without time passing."""
        while self._connect() or any([end.step() for end in list(self.ends)]):
            pass
        self.ends = [end for end in self.ends if not (end.lost and end.peer.lost)]

    def pass_time(self, seconds: float) -> None:
        """Let time pass, and everything happen that it brings about."""
        self.flow()
        self.advance(seconds)
        self.flow()

    def _connect(self) -> bool:
        dials = [dial for dial in self._dials if not dial.over]
        self._dials = [dial for dial in dials if self.servers.get(dial.where, dial) is None]
        for dial in dials:
            if dial in self._dials:
                continue
            if dial.where not in self.servers:
                dial.fail(ConnectionRefusedError())
                continue
            dial.end()
            address = IPv4Address("TCP", "192.0.2.2", 1)
            self.join(
                dial.factory.buildProtocol(dial.getDestination()),
                self.servers[dial.where].buildProtocol(address),
                dial.where,
                "192.0.2.2",
            )
        return len(dials) > len(self._dials)


class Party(Protocol):
    """Somebody who says what the test tells, and keeps what comes.

    @ivar ended: C{closed} or C{reset}, once the connection is lost.
    """

    transport: Any

    def __init__(self, network: Network) -> None:
        self._network = network
        self.received = bytearray()
        self.ended = ""

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ended = "closed" if reason.check(ConnectionDone) else "reset"

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

    def close(self) -> None:
        """End it in good order."""
        self.transport.loseConnection()
        self._network.flow()

    def reset(self) -> None:
        self.transport.abortConnection()
        self._network.flow()


class Parties(Factory):
    """Makes a L{Party} of whoever connects."""

    noisy = False

    def __init__(self, network: Network) -> None:
        self._network = network
        self.lines: list[Party] = []
        self.greet: Callable[[Party], object] = lambda party: None

    def buildProtocol(self, addr: object) -> Party:
        party = Party(self._network)
        self.lines.append(party)
        self.greet(party)
        return party

    @property
    def last(self) -> Party:
        """The latest of them."""
        return self.lines[-1]
