"""A name's addresses are used for a while, looked up again while they are in use, and what is gone is noticed."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import DNSLookupError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.wire.client.host_addresses import LOOKUPS_PER_TTL, HostAddresses, preferring

TTL = 30.0


class Resolver(Clock):
    """A reactor with a resolver that answers when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.nameResolver = self
        self.asked: list[Any] = []

    def resolveHostName(self, receiver: Any, name: str, portNumber: int = 0) -> Any:
        assert (name, portNumber) == ("h.test", 80)
        receiver.resolutionBegan(self)
        self.asked.append(receiver)
        return receiver

    def answer(self, *hosts: str) -> None:
        receiver = self.asked.pop(0)
        for host in hosts:
            receiver.addressResolved((IPv6Address if ":" in host else IPv4Address)("TCP", host, 80))
        receiver.resolutionComplete()


class HostAddressesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.begin(TTL)

    def begin(self, ttl: float) -> None:
        self.reactor = Resolver()
        self.addresses = HostAddresses(self.reactor, "h.test", 80, ttl)
        self.changes: list[frozenset[str]] = []
        self.addresses.on_change = self.changes.append

    def hosts(self) -> list[str]:
        return [address.host for address in self.successResultOf(self.addresses.get())]

    def test_one_lookup_for_all(self) -> None:
        waiting = [self.addresses.get() for _ in range(3)]
        waiting[1].cancel()
        self.failureResultOf(waiting[1])
        self.reactor.answer("192.0.2.1")
        self.assertEqual(self.reactor.asked, [])
        for each in (waiting[0], waiting[2]):
            self.assertEqual([address.host for address in self.successResultOf(each)], ["192.0.2.1"])

    def test_for_so_long(self) -> None:
        self.addresses.get()
        self.reactor.answer("192.0.2.1")
        self.reactor.advance(TTL - 1)
        self.assertEqual(self.hosts(), ["192.0.2.1"])
        self.reactor.advance(1)
        late = self.addresses.get()
        self.assertNoResult(late)
        self.reactor.answer("192.0.2.2")
        self.assertEqual(self.successResultOf(late)[0].host, "192.0.2.2")

    def test_each_time(self) -> None:
        self.begin(0.0)
        for host in ("192.0.2.1", "192.0.2.2"):
            waiting = self.addresses.get()
            self.reactor.answer(host)
            self.assertEqual(self.successResultOf(waiting)[0].host, host)
        self.assertEqual((self.reactor.getDelayedCalls(), self.changes), ([], []))

    def test_the_resolver_fails(self) -> None:
        first = self.addresses.get()
        self.reactor.answer()
        self.failureResultOf(first, DNSLookupError)
        second = self.addresses.get()
        self.reactor.answer("192.0.2.1")
        self.successResultOf(second)
        self.reactor.advance(TTL)
        third = self.addresses.get()
        self.reactor.answer()
        self.assertEqual(self.successResultOf(third)[0].host, "192.0.2.1", "better than nothing")

    def test_in_the_background_while_in_use(self) -> None:
        """Gone is what two lookups in a row have not named; all this takes less than the time to live."""
        in_use = True
        self.addresses.in_use = lambda: in_use
        self.addresses.get()
        self.reactor.answer("192.0.2.1", "192.0.2.2")
        for hosts in (("192.0.2.2",), ("192.0.2.2", "192.0.2.3")):
            self.assertEqual(self.changes, [])
            self.reactor.advance(TTL / LOOKUPS_PER_TTL)
            self.reactor.answer(*hosts)
        self.assertEqual(self.changes, [frozenset(("192.0.2.2", "192.0.2.3"))])
        self.assertLess(self.reactor.seconds(), TTL)
        in_use = False
        self.reactor.advance(TTL)
        self.assertEqual((self.reactor.asked, self.reactor.getDelayedCalls()), ([], []))

    def test_addresses_that_come_in_turn_stay(self) -> None:
        self.addresses.in_use = lambda: True
        self.addresses.get()
        for hosts in (("192.0.2.1",), ("192.0.2.2",), ("192.0.2.1",), ("192.0.2.2",)):
            self.reactor.answer(*hosts)
            self.reactor.advance(TTL / LOOKUPS_PER_TTL)
        self.assertEqual(self.changes, [])

    def test_closed(self) -> None:
        self.addresses.get()
        self.reactor.answer("192.0.2.1")
        self.addresses.close()
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_families_take_turns(self) -> None:
        made = [IPv6Address("TCP", f"::{n}", 1) for n in (1, 2, 3)] + [IPv4Address("TCP", "192.0.2.1", 1)]
        hosts = [address.host for address in preferring(made, lambda _: False)]
        self.assertEqual(hosts, ["::1", "192.0.2.1", "::2", "::3"])
        hosts = [address.host for address in preferring(made, lambda host: ":" in host)]
        self.assertEqual(hosts, ["192.0.2.1", "::1", "::2", "::3"])
