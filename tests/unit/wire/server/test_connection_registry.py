"""Connections are counted, in all and by address, and closed together."""

from __future__ import annotations

from unittest import TestCase

from llmproxy.wire.server.connection_registry import ConnectionRegistry


class Connection:
    """Notes what is asked of it; an idle one ends at once."""

    def __init__(self, registry: ConnectionRegistry, remote: str, *, idle: bool = True) -> None:
        self.registry = registry
        self.remote = remote
        self.idle = idle
        self.aborted = False
        registry.add(self)

    def drain(self, *, spare_idle: bool = False) -> None:
        if not spare_idle:
            self.close_idle()

    def close_idle(self) -> None:
        if self.idle:
            self.registry.remove(self)

    def abortConnection(self) -> None:
        self.aborted = True
        self.registry.remove(self)


class ConnectionRegistryTests(TestCase):
    def registry(self, most: int = 10, of_one: int = 0, shared: str = "") -> ConnectionRegistry:
        return ConnectionRegistry(most, of_one, shared.__eq__)

    def test_no_more_than_allowed(self) -> None:
        registry = self.registry(2)
        connections = [Connection(registry, "192.0.2.1"), Connection(registry, "192.0.2.2")]
        self.assertEqual((len(registry), registry.accepts("192.0.2.3")), (2, False))
        registry.remove(connections[0])
        self.assertEqual((len(registry), registry.accepts("192.0.2.3")), (1, True))

    def test_no_more_than_allowed_from_one_address(self) -> None:
        registry = self.registry(of_one=1)
        Connection(registry, "192.0.2.1")
        self.assertEqual([registry.accepts("192.0.2.1"), registry.accepts("192.0.2.2")], [False, True])

    def test_an_address_that_many_share(self) -> None:
        """It has no limit of its own, but the one for all."""
        registry = self.registry(3, of_one=1, shared="192.0.2.1")
        for _ in range(3):
            self.assertTrue(registry.accepts("192.0.2.1"))
            Connection(registry, "192.0.2.1")
        self.assertFalse(registry.accepts("192.0.2.1"))

    def test_zero_is_no_limit_for_one_address(self) -> None:
        registry = self.registry()
        for _ in range(9):
            Connection(registry, "192.0.2.1")
        self.assertTrue(registry.accepts("192.0.2.1"))

    def test_addresses_without_connections_are_forgotten(self) -> None:
        """Also those that were only asked about: memory does not grow with the clients there have been."""
        registry = self.registry(of_one=1)
        first = Connection(registry, "192.0.2.1")
        Connection(registry, "192.0.2.2")
        registry.accepts("192.0.2.3")
        registry.remove(first)
        self.assertEqual(registry.by_address, {"192.0.2.2": 1})

    def test_draining_waits_for_busy_connections(self) -> None:
        registry = self.registry()
        self.assertFalse(registry.draining)
        Connection(registry, "192.0.2.1")
        busy = Connection(registry, "192.0.2.1", idle=False)
        fired: list[None] = []
        for _ in range(2):
            registry.drain().addCallback(fired.append)
        self.assertEqual((registry.draining, len(registry), fired), (True, 1, []))
        registry.remove(busy)
        self.assertEqual(fired, [None, None])

    def test_draining_without_connections(self) -> None:
        fired: list[None] = []
        self.registry().drain().addCallback(fired.append)
        self.assertEqual(fired, [None])

    def test_closing_idle_connections(self) -> None:
        registry = self.registry()
        Connection(registry, "192.0.2.1")
        Connection(registry, "192.0.2.2", idle=False)
        registry.close_idle()
        self.assertEqual(registry.by_address, {"192.0.2.2": 1})
        self.assertFalse(registry.draining)

    def test_aborting(self) -> None:
        registry = self.registry()
        connections = [Connection(registry, "192.0.2.1"), Connection(registry, "192.0.2.2", idle=False)]
        registry.abort()
        self.assertTrue(all(connection.aborted for connection in connections))
        self.assertEqual(len(registry), 0)
