from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.protocols.haproxy._wrapper import HAProxyWrappingFactory
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.wire.server.proxy_protocol import AddressedSite

HEADER = b"PROXY TCP4 203.0.113.7 127.0.0.1 40000 80\r\n"


class Served(Protocol):
    """What a site made of a connection."""

    def __init__(self) -> None:
        self.received = b""
        self.lost = False

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: object = None) -> None:
        self.lost = True


class RememberingSite:
    def __init__(self) -> None:
        self.made: list[tuple[Any, Served]] = []

    def buildProtocol(self, address: Any) -> Served:
        self.made.append((address.host, Served()))
        return self.made[-1][1]


class AddressedSites(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock, self.site = Clock(), RememberingSite()
        site: Any = self.site
        factory = HAProxyWrappingFactory(AddressedSite(site, self.clock, 10.0))
        self.protocol: Any = factory.buildProtocol(IPv4Address("TCP", "10.0.0.1", 5))
        self.transport: Any = StringTransportWithDisconnection(peerAddress=IPv4Address("TCP", "10.0.0.1", 5))
        self.transport.protocol = self.protocol
        self.protocol.makeConnection(self.transport)

    def test_the_address_of_the_header(self) -> None:
        """The connection is made once something has come after it, and gets all of that."""
        self.protocol.dataReceived(HEADER)
        self.assertEqual(self.site.made, [])
        for data in (b"GET", b" / "):
            self.protocol.dataReceived(data)
        [(address, served)] = self.site.made
        self.assertEqual((address, served.received), ("203.0.113.7", b"GET / "))
        self.clock.advance(60)
        self.assertTrue(self.transport.connected)
        self.protocol.connectionLost(None)
        self.assertTrue(served.lost)

    def test_nothing_comes(self) -> None:
        """It ends after as long as a head may take."""
        self.protocol.dataReceived(HEADER[:10])
        self.clock.advance(9)
        self.assertTrue(self.transport.connected)
        self.clock.advance(1)
        self.assertFalse(self.transport.connected)

    def test_it_ends_before(self) -> None:
        """Nothing is left of it."""
        self.protocol.connectionLost(None)
        self.assertEqual((self.clock.getDelayedCalls(), self.site.made), ([], []))

    def test_health_checks_of_a_load_balancer(self) -> None:
        """It names no client: then it is its own."""
        self.protocol.dataReceived(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0")
        self.protocol.dataReceived(b"GET")
        self.assertEqual([address for address, _ in self.site.made], ["10.0.0.1"])
