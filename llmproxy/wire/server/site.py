"""A web site on channels of our own: strict, streaming both ways, and bounded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.internet.protocol import Protocol
from twisted.web import server
from twisted.web.resource import getChildForRequest

from llmproxy.wire import socket_state as peer
from llmproxy.wire.buffers import Buffers
from llmproxy.wire.descriptors import Descriptors
from llmproxy.wire.parser import MessageLimits
from llmproxy.wire.server.channel import Channel
from llmproxy.wire.server.request import Request
from llmproxy.wire.server.request_decoder import KnownHeads
from llmproxy.wire.server.response_writer import ResponseWriter
from llmproxy.wire.write_coalescing import WriteCoalescer

__all__ = ["Request", "Site"]

COUNTING_SECONDS = 1.0  # between two looks at what clients have not taken

Refused = Callable[[int, str, str, str], object]


def _fresh_id() -> str:
    return uuid4().hex


def _nobody(status: int, code: str, remote: str, request_id: str) -> None:
    """Nobody is told."""


class Site(server.Site):
    """Serves a tree of C{twisted.web} resources.

    A root that has a method C{at(path)} is asked for the resource at a raw path: that costs less than to walk the tree.
    A resource with a true C{starts_on_head} is rendered once the head of its request is there, and finds the body in
    L{Request.upload}; any other is rendered once the body, of at most 1 MiB, is in C{request.content}.

    @ivar draining: Whether connections end with the request that they are at.
    """

    noisy = False
    draining = False

    def __init__(
        self,
        resource: Any,
        *,
        reactor: Any,
        limits: MessageLimits | None = None,
        head_timeout: float = 10.0,
        body_timeout: float = 30.0,
        keepalive_timeout: float = 75.0,
        max_connections: int = 20_000,
        max_connections_per_address: int = 0,
        of_many: Callable[[str], bool] = lambda remote: False,
        send_timeout: float = 60.0,
        min_send_rate: int = 1024,
        on_refused: Refused = _nobody,
        fresh_id: Callable[[], str] = _fresh_id,
        peer_closed: Callable[..., bool] = peer.peer_closed,
        coalescer: WriteCoalescer | None = None,
        unacknowledged_bytes: Callable[[Any], int] = peer.unacknowledged_bytes,
        descriptors: Descriptors | None = None,
        buffers: Buffers | None = None,
    ) -> None:
        """
        @param head_timeout: Seconds in all for a head, from its first byte or from the connection's beginning.
        @param body_timeout: Seconds within which a body must go on.
        @param keepalive_timeout: Seconds for the next request to begin. For all three, C{0} means no limit.
        @param max_connections: Beyond these a new one is closed at once; likewise from one address, C{0}: no limit.
        @param of_many: Tells of an address whether those behind it are many, so that their connections are not counted.
        @param send_timeout: Seconds for which a client may take less than C{min_send_rate} bytes a second of what waits
            for it; C{0}: no limit.
        @param on_refused: Told status, code, address and request id of what is refused before a resource sees it.
        @param fresh_id: Makes the request id of such a refusal.
        @param peer_closed: See L{socket_state.peer_closed}.
        @param coalescer: Where complete answers wait for the end of the reactor's turn; without it they leave at once.
        @param unacknowledged_bytes: See L{socket_state.unacknowledged_bytes}.
        @param buffers: Where is counted what is held of requests, and of what clients have not taken.
        @param descriptors: Told which one each client has got.
        """
        super().__init__(resource, reactor=reactor)  # type: ignore[no-untyped-call]
        self.limits = limits or MessageLimits()
        self.head_timeout = head_timeout
        self.body_timeout = body_timeout
        self.keepalive_timeout = keepalive_timeout
        self.on_refused = on_refused
        self.fresh_id = fresh_id
        self.peer_closed = peer_closed
        self.coalescer = coalescer
        self.unacknowledged_bytes = unacknowledged_bytes
        self.descriptors = descriptors
        self.buffers = buffers
        self.known_heads: KnownHeads | None = getattr(resource, "known_heads", None)
        self.behind: set[ResponseWriter] = set()
        self._counting: IDelayedCall | None = None
        self.send_timeout = send_timeout
        self.least = max(1, int(send_timeout * min_send_rate))
        self.allow = b"Allow: " + b", ".join(sorted(self.limits.methods))
        self._at = getattr(resource, "at", None)
        self._most = max_connections
        self._most_of_one = max_connections_per_address
        self._of_many = of_many
        self._channels: set[Channel] = set()
        self._remotes: Counter[str] = Counter()
        self._emptied: list[Deferred[None]] = []

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._channels)

    def drain(self) -> Deferred[None]:
        """Close idle connections, let busy ones finish; fire when there are none. New ones are the port's part."""
        self.draining = True
        for channel in list(self._channels):
            channel.drain()
        if not self._channels:
            return succeed(None)
        emptied: Deferred[None] = Deferred()
        self._emptied.append(emptied)
        return emptied

    def close_idle(self) -> None:
        """Close connections on which no request is under way: their descriptors are needed."""
        for channel in list(self._channels):
            channel.close_idle()

    def abort(self) -> None:
        """Cut all connections, whatever they are at."""
        for channel in list(self._channels):
            channel.abortConnection()

    def buildProtocol(self, addr: IAddress | None) -> Protocol:  # type: ignore[override]
        remote = _host(addr)
        if len(self._channels) >= self._most or self._has_its_share(remote):
            self.on_refused(503, "too_many_connections", remote, "")
            return _TurnedAway()
        return Channel(self, remote)

    def _has_its_share(self, remote: str) -> bool:
        return 0 < self._most_of_one <= self._remotes[remote] and not self._of_many(remote)

    def opened(self, channel: Channel) -> None:
        """A channel has its connection."""
        self._channels.add(channel)
        self._remotes[channel.remote] += 1

    def fell_behind(self, writer: ResponseWriter) -> None:
        """A client has not taken all that was written; it is looked at again until it has."""
        self.behind.add(writer)
        if self._counting is None:
            self._counting = self.reactor.callLater(COUNTING_SECONDS, self._count)

    def _count(self) -> None:
        self._counting = None
        for writer in list(self.behind):
            writer.count_buffered()
        if self.behind:
            self._counting = self.reactor.callLater(COUNTING_SECONDS, self._count)

    def closed(self, channel: Channel) -> None:
        """A channel has lost it."""
        self._channels.discard(channel)
        self._remotes[channel.remote] -= 1
        if not self._remotes[channel.remote]:
            del self._remotes[channel.remote]
        if not self._channels:
            emptied, self._emptied = self._emptied, []
            for d in emptied:
                d.callback(None)

    # What Twisted asks

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
        """The access log is written from what the journey knows."""


class _TurnedAway(Protocol):
    """One connection too many."""

    def connectionMade(self) -> None:
        self.transport.abortConnection()  # type: ignore[union-attr]


def _host(addr: IAddress | None) -> str:
    if isinstance(addr, IPv4Address | IPv6Address):
        host: str = addr.host
        return host[7:] if host.startswith("::ffff:") and "." in host else host
    return "unix" if addr is not None else ""
