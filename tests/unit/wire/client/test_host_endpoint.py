"""Whichever address connects first is used, and none that leads nowhere is waited for again and again."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from llmproxy.wire.client.host_addresses import HostAddresses
from llmproxy.wire.client.host_endpoint import ATTEMPT_DELAY_SECONDS, AVOIDED_SECONDS, HostEndpoint


class Names:
    def __init__(self, *hosts: str) -> None:
        self.hosts = hosts
        self.asked = 0

    def resolveHostName(self, receiver: Any, name: str, portNumber: int = 0) -> None:
        self.asked += 1
        for host in self.hosts:
            receiver.addressResolved((IPv6Address if ":" in host else IPv4Address)("TCP", host, portNumber))
        receiver.resolutionComplete()


class HostEndpointTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor: Any = MemoryReactorClock()
        self.reactor.nameResolver = self.names = Names("2001:db8::1", "2001:db8::2", "192.0.2.1")
        self.endpoint = HostEndpoint(self.reactor, HostAddresses(self.reactor, "h.test", 80, 30.0), 10.0)
        self.factory = Factory.forProtocol(Protocol)

    def tried(self) -> list[str]:
        return [host for host, *_ in self.reactor.tcpClients]

    def refuse(self, index: int) -> None:
        self.reactor.tcpClients[index][2].clientConnectionFailed(None, Failure(Refused()))

    def accept(self, index: int) -> Any:
        protocol = self.reactor.tcpClients[index][2].buildProtocol(None)
        protocol.makeConnection(StringTransport())
        return protocol

    def test_interface(self) -> None:
        verifyObject(IStreamClientEndpoint, self.endpoint)

    def test_what_refuses_is_not_waited_for(self) -> None:
        connecting = self.endpoint.connect(self.factory)
        self.assertEqual(self.tried(), ["2001:db8::1"])
        self.refuse(0)
        self.assertEqual(self.tried(), ["2001:db8::1", "192.0.2.1"], "at once, and the other family first")
        self.accept(1)
        self.successResultOf(connecting)
        self.endpoint.connect(self.factory)
        self.assertEqual(self.tried()[2:], ["192.0.2.1"])

    def test_what_says_nothing(self) -> None:
        """The next is tried beside it; the next connection does not wait for it any more, for some time."""
        connecting = self.endpoint.connect(self.factory)
        self.reactor.advance(ATTEMPT_DELAY_SECONDS)
        self.assertEqual(self.tried(), ["2001:db8::1", "192.0.2.1"])
        self.accept(1)
        self.successResultOf(connecting)
        self.names.hosts = self.names.hosts[::2]
        self.reactor.advance(31)
        for after, first in [(0.0, "192.0.2.1"), (AVOIDED_SECONDS, "2001:db8::1")]:
            self.reactor.advance(after)
            self.reactor.tcpClients.clear()
            connecting = self.endpoint.connect(self.factory)
            connecting.cancel()
            self.failureResultOf(connecting, CancelledError)
            self.assertEqual(self.tried(), [first])

    def test_all_refuse(self) -> None:
        """The next connection has the name looked up again."""
        connecting = self.endpoint.connect(self.factory)
        for index in range(3):
            self.refuse(index)
        self.failureResultOf(connecting, Refused)
        self.assertEqual(self.names.asked, 1)
        self.endpoint.connect(self.factory)
        self.assertEqual(self.names.asked, 2)

    def test_cancelled(self) -> None:
        connecting = self.endpoint.connect(self.factory)
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)
        self.reactor.advance(10 * ATTEMPT_DELAY_SECONDS)
        self.assertEqual(len(self.tried()), 1)
