"""Twisted's TLS over a TCP connection with a shorter way for small messages, both ways; the rest is Twisted's own.

Twisted gathers what is written for the next turn of the reactor, gives the records to the transport below, which asks
the reactor to be told that it may write, and reads from OpenSSL until OpenSSL raises that there is nothing more: two
further turns, two system calls and two exceptions for each small request. Here what is written leaves at once where
nothing waits before it, as without TLS, and a read that holds just one record is one call of OpenSSL.
"""

from __future__ import annotations

import socket
from typing import Any

from OpenSSL.SSL import Error, WantReadError, ZeroReturnError
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

RECORD_HEAD_BYTES = 5  # RFC 8446, section 5.1: a type, a version, a length
APPLICATION_DATA = 23
MAX_READ_BYTES = 2**15  # more than a record's


class RecordBoundaries:
    """Follows where records end in what is received.

    @ivar at_end: Whether all that came ends with a record.
    """

    __slots__ = ("_head", "_missing")

    def __init__(self) -> None:
        self._head = b""  # of a record whose length is not known yet
        self._missing = 0  # bytes of one that has begun

    @property
    def at_end(self) -> bool:
        return not self._missing and not self._head

    def feed(self, data: bytes) -> None:
        """This came."""
        at = self._missing
        if self._head:
            data, self._head = self._head + data, b""
        while at < len(data):
            head = data[at : at + RECORD_HEAD_BYTES]
            if len(head) < RECORD_HEAD_BYTES:
                self._head, self._missing = head, 0
                return
            at += RECORD_HEAD_BYTES + int.from_bytes(head[3:], "big")
        self._missing = at - len(data)


class DirectTLS(TLSMemoryBIOProtocol):
    """Writes where nothing waits to be written, and reads a single record at once."""

    _socket: socket.socket | None = None  # the connection's own, where it is written to directly

    def makeConnection(self, transport: Any) -> None:
        self._boundaries = RecordBoundaries()
        handle = transport.getHandle() if hasattr(transport, "getHandle") else None
        if isinstance(handle, socket.socket) and hasattr(transport, "_tempDataLen"):
            self._socket = handle
        TLSMemoryBIOProtocol.makeConnection(self, transport)

    def dataReceived(self, data: bytes) -> None:
        boundaries = self._boundaries
        if (
            data[0] != APPLICATION_DATA
            or len(data) != RECORD_HEAD_BYTES + int.from_bytes(data[3:RECORD_HEAD_BYTES], "big")
            or not boundaries.at_end
            or not self._handshakeDone
            or self._lostTLSConnection
            or self._appSendBuffer
        ):
            boundaries.feed(data)
            TLSMemoryBIOProtocol.dataReceived(self, data)
            return
        connection: Any = self._tlsConnection
        connection.bio_write(data)
        try:
            received = connection.recv(MAX_READ_BYTES)
        except WantReadError:
            self._flushSendBIO()  # it was nothing for us: a ticket, or a new key
        except ZeroReturnError:
            self._shutdownTLS()  # type: ignore[no-untyped-call]
            self._tlsShutdownFinished(None)  # type: ignore[no-untyped-call]
        except Error:
            self._tlsShutdownFinished(Failure())  # type: ignore[no-untyped-call]
        else:
            if not self._aborted:
                self.wrappedProtocol.dataReceived(received)

    def _flushSendBIO(self) -> None:
        """Send the records that are ready."""
        connection: Any = self._tlsConnection
        try:
            data = connection.bio_read(MAX_READ_BYTES)
        except WantReadError:
            return
        transport: Any = self.transport
        if self._socket is not None and transport.connected and not transport.dataBuffer and not transport._tempDataLen:
            try:
                sent = self._socket.send(data)
            except OSError:
                sent = 0  # the transport finds out by itself what is wrong
            if sent == len(data):
                return
            data = data[sent:]
        transport.write(data)

    @property
    def has_drained(self) -> bool:
        """Whether all that was written is in the kernel; no, where that takes longer to be known."""
        transport: Any = self.transport
        return self._socket is not None and not (transport.dataBuffer or transport._tempDataLen or self._appSendBuffer)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self._socket = None
        TLSMemoryBIOProtocol.connectionLost(self, reason)


def send_directly(factory: TLSMemoryBIOFactory) -> TLSMemoryBIOFactory:
    """Have the connections of this factory be of that kind."""
    factory.protocol = DirectTLS
    return factory


@implementer(IStreamClientEndpoint)
class DirectTLSEndpoint:
    """Makes such connections to a server, over those of another endpoint."""

    def __init__(
        self, creator: IOpenSSLClientConnectionCreator, below: IStreamClientEndpoint, clock: IReactorTime
    ) -> None:
        self._creator = creator
        self._below = below
        self._clock = clock

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        factory = send_directly(TLSMemoryBIOFactory(self._creator, True, protocolFactory, self._clock))
        connecting: Deferred[Any] = self._below.connect(factory)
        return connecting.addCallback(lambda protocol: protocol.wrappedProtocol)
