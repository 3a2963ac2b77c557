"""Twisted's epoll reactor with a shorter way from the kernel to a protocol; everything else is Twisted's own.

The stock reactor puts each event through C{log.callWithLogger} (a logging context that nothing here reads) and each
read through C{_dataReceived} (which looks for return values that were deprecated in 2011). For a small request that
passes a proxy, these are some microseconds of about thirty. Nothing asks for more than Twisted's interfaces, so every
other reactor does as well: this one is a matter of speed alone.
"""

from __future__ import annotations

import errno
import socket
from typing import Any

from twisted.internet import main, tcp
from twisted.internet.epollreactor import EPOLLIN, EPollReactor
from twisted.internet.main import installReactor
from twisted.python import log

MAX_READ_BYTES = 65536
MAX_EVENTS = 32  # of one turn; timers and those that wait for the next turn come in between, whatever the crowd


class _ShortRead:
    """Hands what is read to the protocol, without detours."""

    def doRead(self: Any) -> Exception | None:
        try:
            data = self.socket.recv(MAX_READ_BYTES)
        except BlockingIOError:
            return None
        except OSError as e:
            return None if e.errno == errno.EINTR else main.CONNECTION_LOST
        if not data:
            return main.CONNECTION_DONE
        self.protocol.dataReceived(data)
        return None


class ServerTransport(_ShortRead, tcp.Server):  # type: ignore[misc]
    """A connection that was accepted."""


class ClientTransport(_ShortRead, tcp.Client):  # type: ignore[misc]
    """A connection that was made from here."""


class _Port(tcp.Port):
    transport = ServerTransport


class _Connector(tcp.Connector):
    def _makeTransport(self) -> ClientTransport:
        transport: Any = ClientTransport
        return transport(self.host, self.port, self.bindAddress, self, self.reactor)  # type: ignore[no-any-return]


class LeanEPollReactor(EPollReactor):
    """Reads of TCP connections are called directly, everything else as Twisted calls it."""

    def doPoll(self, timeout: float | None) -> None:
        selectables = self._selectables
        try:
            events = self._poller.poll(-1 if timeout is None else timeout, MAX_EVENTS)
        except OSError as e:
            if e.errno == errno.EINTR:
                return
            raise
        for descriptor, event in events:
            selectable = selectables.get(descriptor)
            if selectable is None:
                continue
            if event != EPOLLIN or not isinstance(selectable, _ShortRead):
                log.callWithLogger(selectable, self._doReadOrWrite, selectable, descriptor, event)
                continue
            why: BaseException | None
            try:
                why = selectable.doRead()
            except BaseException as e:
                why = e  # the protocol's fault: it loses its connection, as with every reactor
                log.err()
            if why is not None:
                self._disconnectSelectable(selectable, why, True)  # type: ignore[no-untyped-call]

    doIteration = doPoll

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        listener = _Port(port, factory, backlog, interface, self)
        listener.startListening()
        return listener

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: Any,
        timeout: float = 30,
        bindAddress: Any = None,
    ) -> Any:
        connector = _Connector(host, port, factory, timeout, bindAddress, self)
        connector.connect()
        return connector

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> Any:
        if addressFamily not in (socket.AF_INET, socket.AF_INET6):
            return EPollReactor.adoptStreamPort(self, fileDescriptor, addressFamily, factory)
        listening: Any = _Port
        listener = listening._fromListeningDescriptor(self, fileDescriptor, addressFamily, factory)
        listener.startListening()
        return listener


def install() -> None:
    """Make it the process's reactor. Before anything imports C{twisted.internet.reactor}."""
    installReactor(LeanEPollReactor())  # type: ignore[no-untyped-call]
