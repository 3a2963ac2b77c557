"""A network in memory with finite buffers: whoever does not read makes the other side wait, as on a real one.

Nothing moves until L{Link.pump} is called; then everything moves that can.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from llmproxy.wire import socket_state as peer

CAPACITY = 64 * 1024


@implementer(ITCPTransport)
class MemoryTransport:
    """One end of a connection.

    @ivar capacity: Bytes that may be on their way to this end, unread; and bytes that may wait to be sent from here
        before a producer is paused.
    @ivar unsent: What was written and could not be sent yet.
    @ivar inbox: What has arrived and was not read yet.
    @ivar writes: Every write by itself.
    """

    other: MemoryTransport

    def __init__(self, protocol: Protocol, host: str, capacity: int) -> None:
        self.protocol = protocol
        self.capacity = capacity
        self.unsent = bytearray()
        self.inbox = bytearray()
        self.writes: list[bytes] = []
        self.connected = True
        self.disconnecting = False
        self.reading = True
        self.aborted = False
        self.no_delay = False
        self._address = IPv4Address("TCP", host, 4711)
        self._producer: Any = None
        self._streaming = True
        self._producer_paused = False
        self._write_closing = False
        self._write_closed = False
        self._ended = False  # the other side has said that it will send no more
        self._told_end = False
        self._reset = False

    # ITransport, IConsumer

    def write(self, data: bytes) -> None:
        assert isinstance(data, bytes)
        if not self.connected or self._write_closed or not data:
            return
        self.writes.append(data)
        self.unsent += data
        if len(self.unsent) > self.capacity and self._producer is not None and self._streaming:
            self._producer_paused = True
            self._producer.pauseProducing()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        if not self.connected or self.disconnecting:
            return
        if self._write_closed:
            self._lose(ConnectionDone())
            return
        self.disconnecting = True
        self.reading = False

    def loseWriteConnection(self) -> None:
        self._write_closing = True

    def abortConnection(self) -> None:
        if self.connected:
            self.aborted = True
            self.unsent.clear()
            self.other._reset = True
            self._lose(ConnectionAborted())

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert self._producer is None, "There is a producer already."
        if not self.connected:
            producer.stopProducing()
            return
        self._producer, self._streaming = producer, streaming

    def unregisterProducer(self) -> None:
        self._producer = None
        self._producer_paused = False

    # IPushProducer

    def pauseProducing(self) -> None:
        self.reading = False

    def resumeProducing(self) -> None:
        if self.connected and not self.disconnecting:
            self.reading = True

    def stopProducing(self) -> None:
        self.loseConnection()

    # Addresses and options

    def getPeer(self) -> IPv4Address:
        return self.other._address

    def getHost(self) -> IPv4Address:
        return self._address

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.no_delay = bool(enabled)

    def getTcpNoDelay(self) -> bool:
        return self.no_delay

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """There is nothing to keep alive."""

    def getTcpKeepAlive(self) -> bool:
        return False

    # What moves

    def step(self) -> bool:
        """Move what can be moved at this end; whether anything did."""
        return self._send() | self._deliver()

    def _send(self) -> bool:
        if not self.connected:
            return False
        if self.unsent and not self.other.connected:  # what comes back is a reset
            self._reset = True
            return True
        size = min(len(self.unsent), self.other.capacity - len(self.other.inbox))
        if size > 0:
            self.other.inbox += self.unsent[:size]
            del self.unsent[:size]
        if self.unsent:
            return size > 0
        return self._emptied() or size > 0

    def _emptied(self) -> bool:
        if self._producer is not None:
            if self._producer_paused or not self._streaming:
                self._producer_paused = False
                self._producer.resumeProducing()
                return True
        elif self.disconnecting:
            self.other._ended = True
            self._lose(ConnectionDone())
            return True
        elif self._write_closing and not self._write_closed:
            self._write_closed = self.other._ended = True
            if IHalfCloseableProtocol.providedBy(self.protocol):
                self.protocol.writeConnectionLost()
            return True
        return False

    def _deliver(self) -> bool:
        if not self.connected:
            return False
        if self._reset:
            self._lose(ConnectionLost())
            return True
        if not self.reading:
            return False
        if self.inbox:
            data = bytes(self.inbox)
            self.inbox.clear()
            self.protocol.dataReceived(data)
            return True
        if self._ended and not self._told_end:
            self._told_end = True
            if IHalfCloseableProtocol.providedBy(self.protocol):
                self.reading = False
                self.protocol.readConnectionLost()
            else:
                self.other._ended = True
                self._lose(ConnectionDone())
            return True
        return False

    def _lose(self, reason: Exception) -> None:
        self.connected = self.reading = False
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()
        self.protocol.connectionLost(Failure(reason))


class RecordingProtocol(Protocol):
    """An end that a test drives by hand.

    @ivar received: All bytes that have come.
    @ivar pieces: The same, as they came.
    @ivar lost: Why the connection ended, once it has.
    """

    transport: Any

    def __init__(self) -> None:
        self.received = bytearray()
        self.pieces: list[bytes] = []
        self.lost: Failure | None = None
        self.ended = False

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self.pieces.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason


@implementer(IHalfCloseableProtocol)
class HalfCloseProtocol(RecordingProtocol):
    """A L{RecordingProtocol} whose connection outlives the end of what the other side sends."""

    def readConnectionLost(self) -> None:
        self.ended = True

    def writeConnectionLost(self) -> None:
        """It was its own doing."""


class Link:
    """A connection between two protocols.

    @ivar near: The transport of the protocol given first, usually a server's.
    @ivar far: That of the other.
    """

    def __init__(self, near: Protocol, far: Protocol, *, capacity: int = CAPACITY, address: str = "192.0.2.1") -> None:
        self.near = MemoryTransport(near, "192.0.2.100", capacity)
        self.far = MemoryTransport(far, address, capacity)
        self.near.other, self.far.other = self.far, self.near
        far.makeConnection(self.far)  # type: ignore[arg-type]
        near.makeConnection(self.near)  # type: ignore[arg-type]

    def pump(self) -> None:
        """Let everything move until nothing does."""
        while self.near.step() | self.far.step():
            pass


def peer_closed(transport: Any, *, half: bool) -> bool:
    """What L{llmproxy.wire.socket_state.peer_closed} would know."""
    return transport._reset or (half and transport._ended)


def unacknowledged_bytes(transport: Any) -> int:
    """What L{llmproxy.wire.socket_state.unacknowledged_bytes} would count."""
    if not isinstance(transport, MemoryTransport):
        return peer.unacknowledged_bytes(transport)
    return len(transport.unsent) + len(transport.other.inbox)
