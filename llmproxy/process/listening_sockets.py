"""Listening sockets that are opened once, and served by one process after another, or by several at once."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.defer import CancelledError
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.internet.protocol import Factory
from twisted.protocols.tls import TLSMemoryBIOFactory

from llmproxy.process.start_failures import PROXY_PREFIX, check_names, not_listening
from llmproxy.store.errors import StartupError

BACKLOG = 4096  # the kernel has a bound of its own, net.core.somaxconn


def is_proxied(endpoint: str) -> bool:
    """Whether its connections begin with a header of the PROXY protocol."""
    return endpoint.startswith(PROXY_PREFIX)


def with_backlog(endpoint: str) -> str:
    """The endpoint with a backlog for bursts, unless it has one: Twisted's 50 makes the 51st client wait a second."""
    takes_one = endpoint.removeprefix(PROXY_PREFIX).partition(":")[0] in ("tcp", "tcp6", "ssl", "tls", "unix")
    return f"{endpoint}:backlog={BACKLOG}" if takes_one and ":backlog=" not in endpoint else endpoint


class ListeningSockets:
    """Has them open and accepts nothing: others do, who get the descriptors.

    Clients wait in the listen queue while there is nobody.
    """

    def __init__(self, reactor: Any, ports: Mapping[str, Any] | None = None) -> None:
        """
        @param ports: Those that are open already, by their endpoint.
        """
        self._reactor = reactor
        self._ports: dict[str, Any] = dict(ports or {})

    def of(self, endpoints: Iterable[str]) -> dict[str, int]:
        """The descriptors of these, by the endpoint."""
        return {endpoint: self._ports[endpoint].fileno() for endpoint in endpoints if endpoint in self._ports}

    async def open(self, endpoints: Iterable[str]) -> None:
        """L{StartupError<llmproxy.store.errors.StartupError>} where one cannot be."""
        for endpoint in endpoints:
            if endpoint in self._ports:
                continue
            try:
                listening = serverFromString(self._reactor, with_backlog(endpoint)).listen(Factory())
                port: Any = await listening
            except CancelledError:
                raise
            except Exception as e:
                raise not_listening(endpoint, e) from e
            self._ports[endpoint] = port
            port.stopReading()

    async def close(self) -> None:
        """Listen on none of them any more."""
        await self.keep(())

    async def keep(self, endpoints: Iterable[str]) -> None:
        """Listen only on these any more."""
        kept = set(endpoints)
        for endpoint in [each for each in self._ports if each not in kept]:
            stopping = self._ports.pop(endpoint).stopListening()
            if stopping is not None:
                await stopping


class _SharedUnixPort(unix.Port):
    """Its path, with its permissions, belongs to whoever made it, unless it has been taken over.

    @ivar owner: Whether the path is removed with it.
    """

    owner = False
    _shouldShutdown = False  # for others listen on it

    def startListening(self) -> None:
        """As a TCP port does with such a socket: Twisted's UNIX port would change permissions and backlog."""
        listening: Any = self._preexistingSocket
        factory: Any = self.factory
        factory.doStart()
        self.socket, self.fileno, self._preexistingSocket = listening, listening.fileno, None  # type: ignore[method-assign]
        self.connected = True
        self.numberAccepts = 100
        self.startReading()  # type: ignore[no-untyped-call]

    def connectionLost(self, reason: Any) -> None:
        if self.owner and not self._bindPath.startswith(b"\0"):
            for name in (self._bindPath, self._bindPath + b".lock"):
                with suppress(FileNotFoundError):
                    os.unlink(name)
        tcp.Port.connectionLost(self, reason)


def leave_socket(port: Any) -> None:
    """Have the port end here without an end for those who listen on the same socket: open, and with its path."""
    port._shouldShutdown = False
    if isinstance(port, _SharedUnixPort):
        port.owner = False
    elif isinstance(port, unix.Port):
        port.connectionLost = partial(tcp.Port.connectionLost, port)  # type: ignore[method-assign]


def own_path(port: Any) -> None:
    """Have the path of a port that was adopted end with it, as whoever made it does no more."""
    if not isinstance(port, _SharedUnixPort):
        return
    port.owner = True
    lock = port._bindPath + b".lock"  # Twisted's: a symbolic link to the number of the process that has it
    if os.path.lexists(lock):
        with suppress(OSError):
            os.symlink(str(os.getpid()), lock + b".new")
            os.replace(lock + b".new", lock)


class _Adopting:
    """A reactor to which listening means to take over a socket that listens already; all else is the reactor's."""

    def __init__(self, reactor: Any, descriptor: int) -> None:
        self._reactor = reactor
        self._descriptor = descriptor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenTCP(self, port: int, factory: IProtocolFactory, backlog: int = 50, interface: str = "") -> Any:
        return self._adopt(factory)

    def listenSSL(self, port: int, factory: Any, contextFactory: Any, backlog: int = 50, interface: str = "") -> Any:
        return self._adopt(TLSMemoryBIOFactory(contextFactory, False, factory, self._reactor))

    def listenUNIX(self, address: str, factory: IProtocolFactory, *more: Any, **others: Any) -> Any:
        return self._adopt(factory)

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: IProtocolFactory) -> Any:
        return self._adopt(factory)

    def _adopt(self, factory: IProtocolFactory) -> Any:
        family = _family(self._descriptor)
        if family == socket.AF_UNIX:
            shared: Any = _SharedUnixPort
            port = shared._fromListeningDescriptor(self._reactor, self._descriptor, factory)
            port.startListening()
        else:
            port = self._reactor.adoptStreamPort(self._descriptor, family, factory)
        os.close(self._descriptor)  # Twisted has a copy
        return port


class _ListeningNowhere(_Adopting):
    """A reactor on which listening only gives the factory that the connections would be made with."""

    def __init__(self, reactor: Any) -> None:
        super().__init__(reactor, -1)

    def _adopt(self, factory: IProtocolFactory) -> Any:
        return factory


def secured(reactor: Any, endpoint: str, factory: IProtocolFactory) -> TLSMemoryBIOFactory:
    """What the connections of an endpoint with TLS are made with, its files read now.

    L{StartupError<llmproxy.store.errors.StartupError>} where they cannot be used.
    """
    made: list[Any] = []
    try:
        check_names(endpoint)
        serverFromString(_ListeningNowhere(reactor), endpoint).listen(factory).addCallback(made.append)
    except StartupError:
        raise
    except Exception as e:
        raise not_listening(endpoint, e) from e
    [secure] = made
    return secure  # type: ignore[no-any-return]


def _family(descriptor: int) -> int:
    with socket.socket(fileno=os.dup(descriptor)) as copy:
        return copy.family


async def adopt(reactor: Any, endpoint: str, descriptor: int, factory: IProtocolFactory) -> IListeningPort:
    """Listen as the endpoint says, TLS and all, on a socket that listens already; it is taken over."""
    adopting = _Adopting(reactor, descriptor)
    if endpoint.partition(":")[0] == "systemd":
        return adopting.listenTCP(0, factory)  # type: ignore[no-any-return]
    port: IListeningPort = await serverFromString(adopting, endpoint).listen(factory)
    return port
