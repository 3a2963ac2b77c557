"""Connections over the PROXY protocol: their clients are those that its header names.

Twisted reads the header (C{haproxy:} before an endpoint), of version 1 and 2
(https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt), and gives what comes after it. The address that it has
for a connection is the load balancer's until then, so the connection is only made once something has come.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.haproxy._exceptions import InvalidProxyHeader
from twisted.protocols.haproxy._info import ProxyInfo
from twisted.protocols.haproxy._v1parser import V1Parser
from twisted.protocols.haproxy._v2parser import V2Parser
from twisted.protocols.haproxy._wrapper import HAProxyProtocolWrapper
from twisted.python.failure import Failure

from llmproxy.wire.server.site import Site

MAX_V1_BYTES = 107  # of a header of version 1, with its line end
V2_BYTES = 16  # of one of version 2, up to the addresses


class HeaderParser:
    """Reads a header of either version, in whatever pieces it comes.

    Twisted's parsers do, but for this: they want to see in the first piece which version it is; they reject C{PROXY
    UNKNOWN} with nothing behind, which is how load balancers check whether a server is well; and they take anything for
    an address.
    """

    def __init__(self) -> None:
        self._held = b""
        self._v2: V2Parser | None = None

    def feed(self, data: bytes) -> tuple[ProxyInfo, bytes] | tuple[None, None]:
        """What the header says, and what came after it; two C{None} until it is whole. C{InvalidProxyHeader} where it
        is none."""
        if self._v2 is None:
            self._held = data = self._held + data
            if V2Parser.PREFIX.startswith(data[: len(V2Parser.PREFIX)]):
                if len(data) < V2_BYTES:
                    return None, None
                if data[12] & 0xF0 != 0x20:
                    raise InvalidProxyHeader
                self._held, self._v2 = b"", V2Parser()
            else:
                return self._line(data)
        return self._v2.feed(data)

    def _line(self, data: bytes) -> tuple[ProxyInfo, bytes] | tuple[None, None]:
        line, end, rest = data.partition(b"\r\n")
        if not b"PROXY ".startswith(data[:6]) or len(line) + len(end) > MAX_V1_BYTES:
            raise InvalidProxyHeader
        if not end:
            return None, None
        if line == b"PROXY UNKNOWN":
            return ProxyInfo(line, None, None), rest
        try:
            found = V1Parser.parse(line)
            for address in filter(None, (found.source, found.destination)):
                ip_address(address.host)  # type: ignore[attr-defined]
        except ValueError as e:  # an address, or a port
            raise InvalidProxyHeader from e
        return found, rest


class AddressedSite(Factory):
    """Has a site serve connections under the address that their PROXY header names."""

    noisy = False

    def __init__(self, site: Site, clock: IReactorTime, head_timeout: float) -> None:
        """
        @param head_timeout: Seconds for the header and the first byte of a request; none with C{0}.
        """
        self.site = site
        self.clock = clock
        self.head_timeout = head_timeout

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        return _Unaddressed(self)


class _Unaddressed(Protocol):
    """A connection whose header has not come."""

    _timer: IDelayedCall | None = None
    _served: Any = None

    def __init__(self, factory: AddressedSite) -> None:
        self.factory: AddressedSite = factory

    def connectionMade(self) -> None:
        transport: Any = self.transport
        if isinstance(transport, HAProxyProtocolWrapper):
            transport._parser = HeaderParser()  # type: ignore[assignment]
        if self.factory.head_timeout:
            self._timer = self.factory.clock.callLater(self.factory.head_timeout, transport.abortConnection)

    def dataReceived(self, data: bytes) -> None:
        if self._served is None:
            self._stop_timer()
            transport: Any = self.transport
            self._served = self.factory.site.buildProtocol(transport.getPeer())
            if isinstance(transport, HAProxyProtocolWrapper):
                transport.wrappedProtocol = self._served  # what comes from now on goes to it directly
            self._served.makeConnection(transport)
        self._served.dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._stop_timer()

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
