"""Connections over the PROXY protocol: their clients are those that its header names.

Twisted reads the header (C{haproxy:} before an endpoint), of version 1 and 2
(https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt), and gives what comes after it. The address that it has
for a connection is the load balancer's until then, so the connection is only made once something has come.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.haproxy._wrapper import HAProxyProtocolWrapper
from twisted.python.failure import Failure

from llmproxy.wire.server.site import Site


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
