"""A web site on channels of our own: strict, streaming both ways, and bounded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Protocol
from twisted.web import server
from twisted.web.resource import getChildForRequest

from llmproxy.wire import socket_state
from llmproxy.wire.buffers import Buffers
from llmproxy.wire.deadline import Deadlines
from llmproxy.wire.descriptors import Descriptors
from llmproxy.wire.server.channel import Channel
from llmproxy.wire.server.connection_context import ConnectionContext, OnRefused
from llmproxy.wire.server.connection_registry import ConnectionRegistry
from llmproxy.wire.server.request import Request
from llmproxy.wire.server.response_writer import Backlog, WriterSettings
from llmproxy.wire.server.server_limits import ServerLimits
from llmproxy.wire.write_coalescing import WriteCoalescer

__all__ = ["Request", "Site"]


def _fresh_id() -> str:
    return uuid4().hex


def _nobody(status: int, code: str, remote: str, request_id: str) -> None:
    """Nobody is notified."""


class Site(server.Site):
    """Serves a tree of C{twisted.web} resources.

    A root that has a method C{at(path)} is asked for the resource at a raw path: that costs less than to walk the tree.
    A resource with a true C{starts_on_head} is rendered once the head of its request is there, and finds the body in
    L{Request.upload}; any other is rendered once the body, of at most 1 MiB, is in C{request.content}.
    """

    noisy = False

    def __init__(
        self,
        resource: Any,
        *,
        reactor: Any,
        limits: ServerLimits | None = None,
        is_shared: Callable[[str], bool] = lambda remote: False,
        on_refused: OnRefused = _nobody,
        fresh_id: Callable[[], str] = _fresh_id,
        peer_closed: Callable[..., bool] = socket_state.peer_closed,
        unacknowledged_bytes: Callable[[Any], int] = socket_state.unacknowledged_bytes,
        coalescer: WriteCoalescer | None = None,
        descriptors: Descriptors | None = None,
        buffers: Buffers | None = None,
    ) -> None:
        """
        @param is_shared: Tells of an address whether many clients are behind it, so that their connections are not
            counted as those of one.
        @param on_refused: Called with status, code, address and request id of what is rejected before a resource sees
            it.
        @param fresh_id: Makes the request id of such a rejection.
        @param peer_closed: See L{socket_state.peer_closed}.
        @param unacknowledged_bytes: See L{socket_state.unacknowledged_bytes}.
        @param coalescer: Where complete responses wait for the end of the reactor's turn; without it they leave at
            once.
        @param descriptors: Notes which descriptor each client has got.
        @param buffers: Counts what is held of requests, and of what clients have not taken.
        """
        super().__init__(resource, reactor=reactor)  # type: ignore[no-untyped-call]
        limits = limits or ServerLimits()
        self._at = getattr(resource, "at", None)
        self._connections = ConnectionRegistry(limits.max_connections, limits.max_connections_per_address, is_shared)
        self._context = ConnectionContext(
            site=self,
            reactor=reactor,
            deadlines=Deadlines(reactor),
            limits=limits,
            connections=self._connections,
            writing=WriterSettings(
                clock=reactor,
                send_timeout=limits.send_timeout,
                min_sent_bytes=limits.min_sent_bytes,
                unacknowledged_bytes=unacknowledged_bytes,
                coalescer=coalescer,
                buffers=buffers,
                backlog=Backlog(reactor),
            ),
            on_refused=on_refused,
            fresh_id=fresh_id,
            peer_closed=peer_closed,
            known_heads=getattr(resource, "known_heads", None),
            direct=getattr(resource, "direct", None),
            descriptors=descriptors,
            buffers=buffers,
            allow=b"Allow: " + b", ".join(sorted(limits.messages.methods)),
        )

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._connections)

    def drain(self, patience: float = 0.0) -> Deferred[None]:
        """Close idle connections, let busy ones finish; fire when there are none. New ones are the port's part.

        @param patience: Seconds for which idle ones stay for one more request: a client that sends one in the moment in
            which its connection is closed would have to guess whether it may send it again.
        """
        drained = self._connections.drain(spare_idle=patience > 0)
        if patience and not drained.called:
            timer = self._context.reactor.callLater(patience, self._connections.drain)
            drained.addBoth(lambda result: timer.cancel() if timer.active() else None)
        return drained

    def close_idle(self) -> None:
        """Close connections on which no request is in flight: their descriptors are needed."""
        self._connections.close_idle()

    def abort(self) -> None:
        """Abort all connections, whatever they are at."""
        self._connections.abort()

    # What Twisted asks

    def buildProtocol(self, addr: IAddress | None) -> Protocol:  # type: ignore[override]
        remote = _host(addr)
        if self._connections.accepts(remote):
            return Channel(self._context, remote)
        self._context.on_refused(503, "too_many_connections", remote, "")
        return _RejectedConnection()

    def getResourceFor(self, request: Request) -> Any:
        at = self._at
        return getChildForRequest(self.resource, request) if at is None else at(request.path)

    def acceptableProtocols(self) -> list[bytes]:
        return [b"http/1.1"]

    def startFactory(self) -> None:
        """Nothing to start: no log file, and no clock for one."""

    def stopFactory(self) -> None:
        """Nothing was started."""

    def log(self, request: Any) -> None:
        """The access log is written from what the pipeline knows."""


class _RejectedConnection(Protocol):
    """One connection too many."""

    def connectionMade(self) -> None:
        self.transport.abortConnection()  # type: ignore[union-attr]


def _host(addr: IAddress | None) -> str:
    if isinstance(addr, IPv4Address | IPv6Address):
        host: str = addr.host
        return host[7:] if host.startswith("::ffff:") and "." in host else host
    return "unix" if addr is not None else ""
