"""Requests begin at once, or in turns; clients share these."""

from __future__ import annotations

from twisted.internet.address import IPv4Address

from llmproxy.proxy.context import RequestContext
from llmproxy.proxy.request_scheduler import TURN_SECONDS
from tests.support.transport import Link, RecordingProtocol
from tests.unit.proxy.scripted import ProxyCase


class RequestSchedulerTests(ProxyCase):
    def setUp(self) -> None:
        super().setUp()
        self.pipeline.way = self.takes_half_a_turn
        self.links: dict[str, Link] = {}

    async def takes_half_a_turn(self, context: RequestContext) -> None:
        self.clock.rightNow += TURN_SECONDS * 0.51
        await self.pipeline.answer(context)

    def send(self, *requests: str) -> None:
        """Requests, each on a connection of its own: a token and what tells it from others."""
        for request in requests:
            client = RecordingProtocol()
            link = self.links[request] = Link(self.site.buildProtocol(IPv4Address("TCP", "192.0.2.1", 1)), client)
            head = f"POST /{request} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {request[0]}\r\nContent-Length: 0\r\n"
            link.far.write(head.encode() + b"\r\n")
            link.pump()

    def begun(self) -> str:
        """Those that have begun, in this order."""
        return " ".join(context.request.path.decode()[1:] for context in self.pipeline.contexts)

    def turn(self) -> None:
        """And those that follow from it."""
        self.clock.advance(0)

    def test_a_turn_has_an_end(self) -> None:
        self.send("a1", "a2", "a3")
        self.assertEqual(self.begun(), "a1 a2")
        self.turn()
        self.assertEqual(self.begun(), "a1 a2 a3")

    def test_one_that_comes_in_the_next_turn_begins_at_once(self) -> None:
        self.send("a1", "a2")
        self.turn()
        self.send("a3")
        self.assertEqual(self.begun(), "a1 a2 a3")

    def test_clients_take_turns(self) -> None:
        self.send("a1", "a2", "a3", "a4", "a5", "b1")
        self.turn()
        self.assertEqual(self.begun(), "a1 a2 a3 b1 a4 a5")

    def test_nobody_overtakes_those_who_wait(self) -> None:
        self.send("a1", "a2", "a3", "a4", "a5")
        self.turn()
        self.send("a6")
        self.turn()
        self.turn()
        self.assertEqual(self.begun(), "a1 a2 a3 a4 a5 a6")

    def test_all_are_answered(self) -> None:
        requests = [f"{client}{number}" for client in "abc" for number in range(20)]
        self.send(*requests)
        for _ in range(40):
            self.turn()
        self.assertEqual(len(self.pipeline.contexts), 60)
        self.assertEqual({record.outcome for record in self.records}, {"complete"})
        self.assertEqual(self.metrics.in_flight, 0)

    def test_one_that_leaves_while_it_waits(self) -> None:
        self.send("a1", "a2", "a3", "a4")
        self.links["a3"].far.abortConnection()
        self.links["a3"].pump()
        self.assertEqual([record.outcome for record in self.records], ["complete", "complete", "cancelled"])
        self.turn()
        self.assertEqual(self.begun(), "a1 a2 a4")
        self.assertEqual(self.metrics.in_flight, 0)
