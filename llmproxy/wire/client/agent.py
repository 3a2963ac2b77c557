"""An C{IAgent} over our own connections: one pool for each origin."""

from __future__ import annotations

from math import inf
from typing import Any

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred, fail, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.web.client import URI
from twisted.web.error import SchemeNotSupported
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IPolicyForHTTPS
from zope.interface import implementer

from llmproxy import errors
from llmproxy.http.origin import DEFAULT_PORTS, Origin
from llmproxy.wire.client.connect_endpoint import ConnectEndpoint, HTTPProxy
from llmproxy.wire.client.host_addresses import HostAddresses
from llmproxy.wire.client.host_endpoint import HostEndpoint
from llmproxy.wire.client.pending_request import PendingRequest
from llmproxy.wire.client.pool import Pool
from llmproxy.wire.client.pool_limits import IdleBudget, PoolLimits
from llmproxy.wire.client.raw_headers import RawHeaders
from llmproxy.wire.client.request_writer import framing
from llmproxy.wire.client.tls import TrustPolicy
from llmproxy.wire.descriptors import Descriptors
from llmproxy.wire.parser import MessageLimits
from llmproxy.wire.tls_transport import DirectTLSEndpoint
from llmproxy.wire.write_coalescing import WriteCoalescer


@implementer(IAgent)
class Agent:
    """Sends each request once, as it is given, and passes on the response as it comes.

    Given L{RawHeaders}, it sends their lines and only adds the one that frames the body. Given ordinary C{Headers}, it
    also adds C{Host} where there is none.
    """

    def __init__(
        self,
        reactor: Any,
        *,
        connect_timeout: float = 10.0,
        idle_timeout: float = 90.0,
        max_conns_per_host: int = 1000,
        max_idle_per_host: int = 20,
        max_idle: int = 100,
        max_age: float = 3600.0,
        max_waiting: int = 1000,
        dns_ttl: float = 30.0,
        ca_file: str = "",
        proxy: HTTPProxy | None = None,
        proxy_trust: IPolicyForHTTPS | None = None,
        identity: object = None,
        context_factory: IPolicyForHTTPS | None = None,
        limits: MessageLimits | None = None,
        coalescer: WriteCoalescer | None = None,
        descriptors: Descriptors | None = None,
    ) -> None:
        """
        @param connect_timeout: Seconds for making a connection, TLS included; also for waiting until one is free.
        @param max_conns_per_host: Connections to one origin; further requests wait, at most C{max_waiting}: projects
            take turns.
        @param max_idle_per_host: Unused connections kept for one origin, for C{idle_timeout} seconds; C{max_idle}: for
            all. A connection older than C{max_age} seconds is not used again.
        @param dns_ttl: For how many seconds the addresses of a name are used; connections to others are then closed.
        @param ca_file: PEM file of certificate authorities to trust over TLS besides the platform's.
        @param proxy: Through which all connections are made; C{proxy_trust}: whom to trust over TLS to itself, by
            default L{TrustPolicy}.
        @param identity: What all this comes from, for whoever asks whether it would come out the same again.
        @param context_factory: Whom to trust instead; by default L{TrustPolicy}.
        @param coalescer: Where whole requests wait for the end of the reactor's turn; without it they leave at once.
        """
        self._reactor = reactor
        self._pool_limits = PoolLimits(
            connect_timeout, idle_timeout, max_age, max_conns_per_host, max_idle_per_host, max_waiting
        )
        self._idle_budget = IdleBudget(max_idle)
        self._dns_ttl = dns_ttl
        self._proxy = proxy
        self.identity = identity
        self._addresses: list[HostAddresses] = []
        self._proxy_trust = proxy_trust
        self._trust = context_factory or TrustPolicy(ca_file)
        self._limits = limits or MessageLimits()
        self._pools: dict[Origin, Pool] = {}
        self._coalescer = coalescer
        self._descriptors = descriptors
        self._closed = False

    def send(
        self,
        origin: Origin,
        method: bytes,
        target: bytes,
        lines: list[bytes],
        body: IBodyProducer | None,
        *,
        raw: bool = True,
        project: str = "",
    ) -> Deferred[Any]:
        """Send a request; fire with its L{Response} at the end of the response's head.

        @param target: The raw path and query.
        @param lines: The final field lines: with C{Host}, without those that frame the body.
        @param project: See L{PendingRequest}.
        @param raw: Whether the response's C{headers} are to be L{RawHeaders}.
        """
        if self._closed:
            return fail(errors.Draining())
        try:
            head = request_head(method, target, lines, framing(method, body))
        except ValueError as e:
            return fail(e)
        pending = PendingRequest(method, head, body, raw=raw, project=project)
        self.pool(origin).send(pending)
        return pending.responded

    def request(
        self, method: bytes, uri: bytes, headers: Headers | None = None, bodyProducer: IBodyProducer | None = None
    ) -> Deferred[Any]:
        """As C{IAgent} says: L{send}, with C{Host} where it is missing."""
        path = uri.find(b"/", 8)
        prefix, target = (uri[:path], uri[path:]) if path > 0 else (uri, b"/")
        try:
            origin = _origin(prefix)
        except (SchemeNotSupported, ValueError) as e:
            return fail(e)
        if isinstance(headers, RawHeaders):
            return self.send(origin, method, target, headers.lines, bodyProducer)
        return self.send(origin, method, target, _lines(headers, origin), bodyProducer, raw=False)

    def pool(self, origin: Origin) -> Pool:
        """The connections to an origin."""
        pool = self._pools.get(origin)
        if pool is None:
            pool = self._pools[origin] = self._make_pool(origin)
        return pool

    @property
    def waiting(self) -> int:
        """How many requests wait for a connection."""
        return sum(pool.waiting for pool in self._pools.values())

    @property
    def repeated(self) -> int:
        """Requests that were sent again on a fresh connection, as the provider had closed theirs."""
        return sum(pool.repeated for pool in self._pools.values())

    @property
    def idle_lifetime(self) -> float:
        """For how many seconds an unused connection is used again, where that is shortest; C{inf}: for ever."""
        return min((pool.lifetime.limit for pool in self._pools.values()), default=self._pool_limits.idle or inf)

    def close(self) -> Deferred[None]:
        """Close what is not in use, refuse what comes from now on; fire when no connection is left. Cancelled, it waits
        for no response."""
        self._closed = True
        for addresses in self._addresses:
            addresses.close()
        closing = [pool.close() for pool in self._pools.values()]
        return gatherResults(closing, consumeErrors=True).addCallback(lambda _: None)

    def _make_pool(self, origin: Origin) -> Pool:
        endpoint, addresses = self._endpoint(origin)
        pool = Pool(
            endpoint,
            self._reactor,
            self._pool_limits,
            self._idle_budget,
            self._limits,
            secure=origin.scheme == "https",
            coalescer=self._coalescer,
            descriptors=self._descriptors,
        )
        if addresses is not None:
            addresses.in_use, addresses.on_change = lambda: pool.open > 0, pool.keep_only
            self._addresses.append(addresses)
        return pool

    def _endpoint(self, origin: Origin) -> tuple[IStreamClientEndpoint, HostAddresses | None]:
        proxy = self._proxy
        where = origin if proxy is None else proxy
        endpoint, addresses = self._tcp_endpoint(where.host, where.port)
        if proxy is not None:
            if proxy.secure:
                endpoint = self._with_tls(self._proxy_trust or TrustPolicy(), endpoint, proxy)
            host = f"[{origin.host}]" if ":" in origin.host else origin.host
            endpoint = ConnectEndpoint(endpoint, proxy, f"{host}:{origin.port}")
        if origin.scheme == "https":
            endpoint = self._with_tls(self._trust, endpoint, origin)
        return endpoint, addresses

    def _with_tls(
        self, trust: IPolicyForHTTPS, endpoint: IStreamClientEndpoint, peer: Origin | HTTPProxy
    ) -> IStreamClientEndpoint:
        return DirectTLSEndpoint(trust.creatorForNetloc(peer.host.encode("ascii"), peer.port), endpoint, self._reactor)

    def _tcp_endpoint(self, host: str, port: int) -> tuple[IStreamClientEndpoint, HostAddresses | None]:
        where = (self._reactor, host, port)
        timeout: Any = self._pool_limits.connect or None
        endpoint: IStreamClientEndpoint
        addresses = None
        if isIPAddress(host):
            endpoint = TCP4ClientEndpoint(*where, timeout)
        elif isIPv6Address(host):
            endpoint = TCP6ClientEndpoint(*where, timeout)
        else:
            addresses = HostAddresses(*where, self._dns_ttl)
            endpoint = HostEndpoint(self._reactor, addresses, timeout)
        return endpoint, addresses


def request_head(method: bytes, target: bytes, lines: list[bytes], framed: bytes) -> bytes:
    """Put a request's head together; C{ValueError} where a part of it would be read as something else."""
    parts = [b"%b %b HTTP/1.1" % (method, target), *lines]
    if framed:
        parts.append(framed)
    head = b"\r\n".join(parts)
    ends = len(parts) - 1
    if head.count(b"\n") != ends or head.count(b"\r") != ends or b"\0" in head or parts[0].count(b" ") != 2:
        raise ValueError("The request's method, target or headers hold what cannot be sent as such.")
    return head + b"\r\n\r\n"


def _lines(headers: Headers | None, origin: Origin) -> list[bytes]:
    headers = headers or Headers()
    lines = [] if headers.hasHeader(b"Host") else [b"Host: " + origin.netloc.encode("ascii")]
    for name, values in headers.getAllRawHeaders():
        if name not in (b"Content-Length", b"Transfer-Encoding"):
            lines += [b"%b: %b" % (name, value) for value in values]
    return lines


def _origin(prefix: bytes) -> Origin:
    uri = URI.fromBytes(prefix)
    scheme = uri.scheme.decode("ascii")
    if scheme not in DEFAULT_PORTS:
        raise SchemeNotSupported(f"Only http and https are spoken here, not {scheme!r}.")
    host = uri.host.decode("ascii").strip("[]")
    if not host or "@" in host:
        raise ValueError("The URL names no host, or a user besides.")
    return Origin(scheme, host, uri.port)
