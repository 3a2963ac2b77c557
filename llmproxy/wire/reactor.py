"""Twisted's epoll reactor with a shorter way from the kernel to a protocol; everything else is Twisted's own.

The stock reactor puts each event through C{log.callWithLogger} (a logging context that nothing here reads) and each
read through C{_dataReceived} (which looks for return values that were deprecated in 2011). For a small request that
passes a proxy, these are some microseconds of about thirty. Nothing asks for more than Twisted's interfaces, so every
other reactor does as well: this one is a matter of speed alone.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet import main, tcp
from twisted.internet.epollreactor import EPOLLIN, EPollReactor
from twisted.internet.main import installReactor
from twisted.python import log
from twisted.python.failure import Failure

MAX_READ_BYTES = 65536
MAX_EVENTS = 32  # of one turn; timers and those that wait for the next turn come in between, whatever the crowd

_NOTHING_YET = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR)
_DONE = Failure(main.CONNECTION_DONE)  # one for all, as Twisted has it too


class _LeanTransport:
    """A TCP connection that the reactor reads from by itself, where there is nothing but something to be read."""

    socket: Any
    protocol: Any


class ServerTransport(_LeanTransport, tcp.Server):
    """A connection that was accepted.

    One that is closed while nothing waits to be written ends with the turn. Stock transports wait until they could
    write, and write nothing then: two calls of epoll, an empty C{send}, and another turn of the reactor.
    """

    _shouldShutdown = False  # no other process has its descriptor: to close it says the same to the peer

    def loseConnection(self: Any, *reason: Any) -> None:
        waits = self.dataBuffer or self._tempDataLen or self.producer is not None
        if waits or self.TLS or not self.connected or self.disconnecting or self._writeDisconnected:
            tcp.Server.loseConnection(self, *reason)
            return
        self.disconnecting = True
        self.stopReading()
        self.reactor.at_end_of_turn(self.end)

    def end(self: Any) -> None:
        """The turn is over. Where somebody has written after all, that is sent first."""
        if not (self.disconnected or self._aborting or self.dataBuffer or self._tempDataLen):
            self.connectionLost(_DONE)


class ClientTransport(_LeanTransport, tcp.Client):
    """A connection that was made from here. Of a turn it is read last: what comes in several pieces, as streams do, has
    some more time to be all there, and then takes half of the work."""

    _readable: tuple[int, int] | None = None

    def _connectDone(self: Any) -> None:
        self._readable = (self.fileno(), EPOLLIN)
        self.reactor.read_last.add(self._readable)
        tcp.Client._connectDone(self)

    def connectionLost(self: Any, reason: Failure) -> None:
        self.reactor.read_last.discard(self._readable)
        tcp.Client.connectionLost(self, reason)


class _Port(tcp.Port):
    transport = ServerTransport


class _Connector(tcp.Connector):
    def _makeTransport(self) -> ClientTransport:
        transport: Any = ClientTransport
        return transport(self.host, self.port, self.bindAddress, self, self.reactor)  # type: ignore[no-any-return]


class LeanEPollReactor(EPollReactor):
    """Reads TCP connections by itself, calls everything else as Twisted calls it.

    @ivar read_last: Of the events of a turn, as epoll has them, those that come behind all others.
    """

    def __init__(self) -> None:
        self._ending: list[Callable[[], object]] = []
        self.read_last: set[tuple[int, int]] = set()
        EPollReactor.__init__(self)

    def at_end_of_turn(self, call: Callable[[], object]) -> None:
        """Call this once all that has arrived has been read: C{callLater(0)} without a timer."""
        self._ending.append(call)

    def doPoll(self, timeout: float | None) -> None:
        selectables = self._selectables
        if self._ending:
            timeout = 0.0
        try:
            events = self._poller.poll(-1 if timeout is None else timeout, MAX_EVENTS)
        except OSError as e:
            if e.errno == errno.EINTR:
                return  # what is left for the end comes with the next turn, which waits for nothing
            raise
        events.sort(key=self.read_last.__contains__)
        for descriptor, event in events:
            selectable = selectables.get(descriptor)
            if selectable is None:
                continue
            if event != EPOLLIN or not isinstance(selectable, _LeanTransport):
                log.callWithLogger(selectable, self._doReadOrWrite, selectable, descriptor, event)
                continue
            why: BaseException | None = None
            try:
                try:
                    data = selectable.socket.recv(MAX_READ_BYTES)
                except OSError as e:
                    why = None if e.errno in _NOTHING_YET else main.CONNECTION_LOST
                else:
                    if data:
                        selectable.protocol.dataReceived(data)
                    else:
                        why = main.CONNECTION_DONE
            except BaseException as e:
                why = e  # the protocol's fault: it loses its connection, as with every reactor
                log.err()
            if why is not None:
                self._disconnectSelectable(selectable, why, True)  # type: ignore[no-untyped-call]
        if self._ending:
            self._end_turn()

    def _end_turn(self) -> None:
        ending, self._ending = self._ending, []
        for call in ending:
            try:
                call()
            except Exception:  # the fault of one is none of the others'
                log.err()

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
    installReactor(LeanEPollReactor())
