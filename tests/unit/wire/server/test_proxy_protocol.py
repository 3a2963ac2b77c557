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
SECOND = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes((203, 0, 113, 9, 127, 0, 0, 1, 0, 1, 0, 80))


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

    def test_health_checks_by_the_first_version(self) -> None:
        """Likewise: C{PROXY UNKNOWN} with or without anything behind."""
        for header in (b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n"):
            self.setUp()
            self.protocol.dataReceived(header + b"GET")
            self.assertEqual([address for address, _ in self.site.made], ["10.0.0.1"], header)

    def test_in_any_pieces(self) -> None:
        for header, client in ((HEADER, "203.0.113.7"), (SECOND, "203.0.113.9"), (b"PROXY UNKNOWN\r\n", "10.0.0.1")):
            for size in range(1, len(header) + 5):
                self.setUp()
                data = header + b"GET /"
                for at in range(0, len(data), size):
                    self.protocol.dataReceived(data[at : at + size])
                [(address, served)] = self.site.made
                self.assertEqual((address, served.received), (client, b"GET /"), (header, size))

    def test_no_header(self) -> None:
        """The connection ends at the first byte that makes it none, and nothing is logged as an error."""
        for data in (
            b"GET / HTTP/1.1\r\n",
            b"PROXY TCP4 203.0.113.7\r\n",
            b"PROXY TCP4 999.0.0.1 127.0.0.1 1 2\r\n",
            b"PROXY TCP4 203.0.113.7 127.0.0.1 one two\r\n",
            b"PROXY TCP4 \xff 127.0.0.1 1 2\r\n",
            b"PROXY UDP4 203.0.113.7 127.0.0.1 1 2\r\n",
            b"PROXY " + b"x" * 200,
            SECOND[:12] + b"\x31" + SECOND[13:],
            SECOND[:15] + b"\2ab",
            SECOND[:13] + b"\x77" + SECOND[14:],
            b"\r\n\r\n\1",
        ):
            self.setUp()
            self.protocol.dataReceived(data)
            self.assertEqual((self.transport.connected, self.site.made), (False, []), data)
