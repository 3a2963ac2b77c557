"""What is written in one turn of the reactor leaves together, in order, once, and before the connection ends."""

from __future__ import annotations

import socket
from functools import partial
from types import SimpleNamespace
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from llmproxy import errors
from llmproxy.wire.client.connection import Connection
from llmproxy.wire.client.pending_request import PendingRequest
from llmproxy.wire.client.request_writer import BytesBody
from llmproxy.wire.parser import MessageLimits
from llmproxy.wire.server.site import Request, Site
from llmproxy.wire.write_coalescing import IDLE_SECONDS, MAX_WAITING_MESSAGES, WriteCoalescer
from tests.unit.wire.client.test_connection import ConnectionOwner
from tests.unit.wire.serving import GET, Serving


class OnSocket(StringTransport):
    """A transport on a real socket, of which the test has the other end."""

    dataBuffer = b""
    _tempDataLen = 0
    aborted = False
    unsent = b""
    other = SimpleNamespace(inbox=b"")  # the far end has taken all that was sent

    def __init__(self) -> None:
        super().__init__()
        self._near, self.far = socket.socketpair()
        self._near.setblocking(False)
        self.far.setblocking(False)

    def getHandle(self) -> socket.socket:
        return self._near

    def setTcpNoDelay(self, enabled: bool) -> None:
        """It has none."""

    def abortConnection(self) -> None:
        self.aborted = True

    def loseWriteConnection(self) -> None:
        self._near.shutdown(socket.SHUT_WR)

    def received(self) -> bytes:
        try:
            return self.far.recv(65536)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        self._near.close()
        self.far.close()


class Held:
    """What notes that it has left."""

    def __init__(self, left: list[str], name: str) -> None:
        self.leave = partial(left.append, name)


class Turns(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1)
        self.coalescer = WriteCoalescer(self.clock)
        self.left: list[str] = []

    def waits(self, name: str) -> bool:
        return self.coalescer.wait(lambda: self.left.append(name))

    def test_one_that_fails(self) -> None:
        """It takes none of the others with it, and is logged."""
        self.coalescer.wait(lambda: None)
        for leave in (lambda: self.left.append("a"), lambda: 1 / 0, lambda: self.left.append("c")):
            self.coalescer.wait(leave)
        self.clock.advance(0)
        self.assertEqual((self.left, len(self.flushLoggedErrors(ZeroDivisionError))), (["a", "c"], 1))

    def test_after_a_quiet_time(self) -> None:
        """Nobody else is coming: it need not wait."""
        self.assertFalse(self.waits("a"))
        self.clock.advance(IDLE_SECONDS * 1.1)
        self.assertFalse(self.waits("b"))
        self.assertEqual((self.left, self.clock.getDelayedCalls()), ([], []))

    def test_work(self) -> None:
        """After a quiet time it waits for nothing, and makes the message that comes of it wait for nothing either."""
        self.assertFalse(self.coalescer.join(lambda: None))
        self.assertFalse(self.waits("a"))
        self.assertTrue(self.coalescer.join(lambda: self.left.append("work")))
        self.assertTrue(self.waits("b"))
        self.clock.advance(0)
        self.assertEqual(self.left, ["work", "b"])

    def test_work_that_always_waits(self) -> None:
        self.assertTrue(self.coalescer.join(lambda: self.left.append("work"), True))
        self.clock.advance(0)
        self.assertEqual(self.left, ["work"])

    def test_what_comes_of_work(self) -> None:
        """It leaves with the same turn, however much there is of it."""
        self.waits("a")
        names = [str(number) for number in range(MAX_WAITING_MESSAGES + 2)]
        self.coalescer.join(lambda: [self.waits(name) for name in names])
        self.waits("b")
        self.clock.advance(0)
        self.assertEqual((self.left, self.clock.getDelayedCalls()), (["b", *names], []))

    def test_soon_after_another(self) -> None:
        """It waits for the turn's end, with all that come meanwhile."""
        self.waits("a")
        self.assertEqual([self.waits(name) for name in "bcd"], [True] * 3)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(0)
        self.assertEqual(self.left, ["b", "c", "d"])
        self.clock.advance(0)
        self.assertEqual(self.left, ["b", "c", "d"])

    def test_many(self) -> None:
        """They do not wait for more than so many others."""
        names = [str(number) for number in range(MAX_WAITING_MESSAGES + 2)]
        for name in names:
            self.waits(name)
        self.assertEqual(self.left, names[1 : MAX_WAITING_MESSAGES + 1])
        self.clock.advance(0)
        self.assertEqual(self.left, names[1:])

    def test_what_always_waits(self) -> None:
        """Also after a quiet time, and not for more than so many others either."""
        names = [str(number) for number in range(MAX_WAITING_MESSAGES + 2)]
        for number, name in enumerate(names):
            self.assertEqual(self.left, names[: MAX_WAITING_MESSAGES if number >= MAX_WAITING_MESSAGES else 0])
            self.coalescer.held.append(Held(self.left, name))
            if len(self.coalescer.held) in (1, MAX_WAITING_MESSAGES):
                self.coalescer.on_held(len(self.coalescer.held))
        self.clock.advance(0)
        self.assertEqual((self.left, self.clock.getDelayedCalls()), (names, []))

    def test_what_precedes(self) -> None:
        """It is done before any message or chunk leaves, and before what comes of one; where it fails they leave all
        the same."""
        self.coalescer.precede(lambda: self.left.append("first"))
        self.coalescer.precede(lambda: 1 / 0)
        self.waits("quiet")
        self.coalescer.wait(lambda: self.waits("b"))
        self.waits("a")
        self.coalescer.held.append(Held(self.left, "chunk"))
        self.coalescer.on_held(1)
        self.assertEqual(self.left, [])
        self.clock.advance(0)
        self.assertEqual(self.left, ["first", "a", "first", "b", "first", "chunk"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 3)

    def test_one_that_comes_while_others_leave(self) -> None:
        """Has an end of its own."""
        self.waits("a")
        self.coalescer.wait(lambda: self.waits("c"))
        self.waits("b")
        self.clock.advance(0)
        self.assertEqual((self.left, self.clock.getDelayedCalls()), (["b", "c"], []))


class Answers(Serving):
    """A channel on a site that has a turn."""

    def serve(self, resource: Any = None, **settings: Any) -> Site:
        self.coalescer = WriteCoalescer(self.clock)
        return super().serve(resource, coalescer=self.coalescer, **settings)

    def setUp(self) -> None:
        super().setUp()
        self.wire = OnSocket()
        self.addCleanup(self.wire.close)
        self.channel: Any = self.site.buildProtocol(IPv4Address("TCP", "192.0.2.1", 4711))
        self.channel.makeConnection(self.wire)
        self.left: list[int] = []
        self.coalescer.wait(lambda: None)  # somebody else's, just now
        self.clock.advance(0)

    def ask(self, sent: bytes = GET % b"wait") -> Request:
        self.channel.dataReceived(sent)
        return self.request

    def answer(self, body: bytes) -> None:
        self.request.respond(200, b"OK", [], len(body), body)

    def test_a_whole_answer(self) -> None:
        """Leaves at the end of the turn; the next request is taken at once."""
        self.ask()
        self.answer(b"one")
        self.ask()
        self.assertEqual(self.wire.received(), b"")
        self.clock.advance(0)
        self.assertTrue(self.wire.received().endswith(b"\r\n\r\none"))

    def test_one_too_many(self) -> None:
        """All that wait leave before it: what is done behind it in this turn still comes before it leaves itself."""
        for number in range(MAX_WAITING_MESSAGES):
            self.coalescer.wait(partial(self.left.append, number))
        self.ask()
        self.assertEqual(self.left, [])
        self.answer(b"one")
        self.assertEqual((self.left, self.wire.received()), ([*range(MAX_WAITING_MESSAGES)], b""))
        self.clock.advance(0)
        self.assertTrue(self.wire.received().endswith(b"\r\n\r\none"))

    def test_answers_in_order(self) -> None:
        """What is written after it, comes after it, and takes it along."""
        self.ask()
        self.answer(b"one")
        second = self.ask()
        second.begin(200, b"OK", [], None)
        second.write(b"piece")
        received = self.wire.received()
        self.assertLess(received.index(b"one"), received.index(b"piece"))
        self.clock.advance(0)
        self.assertEqual(self.wire.received(), b"")

    def test_chunks_of_a_stream(self) -> None:
        """They leave at the end of the turn, in order, or before what is written in it; also after a quiet time."""
        self.clock.advance(1)
        request = self.ask()
        request.begin(200, b"OK", [], None)
        self.wire.received()
        for data in (b"3\r\none\r\n", b"3\r\ntwo\r\n"):
            self.assertTrue(request.write_chunk(data))
        self.assertEqual(self.wire.received(), b"")
        self.clock.advance(0)
        self.assertEqual(self.wire.received(), b"3\r\none\r\n3\r\ntwo\r\n")
        request.write_chunk(b"4\r\nmore\r\n")
        request.finish(b"end")
        self.clock.advance(0)
        self.assertEqual(self.wire.received(), b"4\r\nmore\r\n3\r\nend\r\n0\r\n\r\n")
        self.assertEqual(request.sentLength, 13)

    def test_a_chunk_before_a_cut(self) -> None:
        """What came is sent, its end is not."""
        request = self.ask()
        request.begin(200, b"OK", [], None)
        self.wire.received()
        request.write_chunk(b"3\r\none\r\n")
        request.abort()
        self.assertEqual(self.wire.received(), b"3\r\none\r\n")

    def test_the_last_one(self) -> None:
        """Leaves before the connection is closed."""
        self.ask(b"GET /wait HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        self.answer(b"last")
        self.assertTrue(self.wire.received().endswith(b"\r\n\r\nlast"))
        self.assertTrue(self.wire.disconnecting)

    def test_what_is_booked_first(self) -> None:
        """However a response is framed, its end waits until what it cost is known, also after a quiet time, and its
        connection is closed behind it."""
        answers = (
            (b"HTTP/1.1\r\n", 5, b"e", b"whole"),
            (b"HTTP/1.1\r\nConnection: close\r\n", 5, b"e", b"whole"),
            (b"HTTP/1.1\r\n", None, b"e", b"4\r\nwhol\r\n1\r\ne\r\n0\r\n\r\n"),
            (b"HTTP/1.1\r\n", None, b"", b"5\r\nwhole\r\n0\r\n\r\n"),
            (b"HTTP/1.1\r\nConnection: close\r\n", None, b"", b"5\r\nwhole\r\n0\r\n\r\n"),
            (b"HTTP/1.0\r\n", 5, b"e", b"whole"),
            (b"HTTP/1.0\r\n", None, b"e", b"whole"),
        )
        self.coalescer.precede(lambda: self.left.append(1))
        for head, length, last, body in answers:
            with self.subTest(head=head, length=length, last=last):
                self.wire = OnSocket()
                self.addCleanup(self.wire.close)
                self.channel = self.site.buildProtocol(IPv4Address("TCP", "192.0.2.1", 4711))
                self.channel.makeConnection(self.wire)
                self.clock.advance(1)
                request = self.ask(b"GET /wait " + head + b"Host: a\r\n\r\n")
                request.booked_first = True
                request.begin(200, b"OK", [], length, hold=True)
                request.write(b"whole"[: 5 - len(last)])
                begun = self.wire.received()
                self.left.clear()
                request.finish(last)
                self.assertEqual((self.wire.received(), self.wire.disconnecting), (b"", False))
                self.channel.dataReceived(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n"[:9])
                self.clock.advance(0)
                received = begun + self.wire.received()
                self.assertEqual(received.partition(b"\r\n\r\n")[2], body)
                closes = b"close" in head or b"1.0" in head
                self.assertEqual((self.left[:1], self.wire.disconnecting), ([1], closes))

    def test_a_client_that_leaves_before_its_end(self) -> None:
        """Nothing is left of it: neither what waits, nor the end of its connection."""
        for data in (
            GET % b"wait",
            b"POST /wait HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\nConnection: close\r\n\r\nx",
        ):
            self.wire = OnSocket()
            self.addCleanup(self.wire.close)
            self.channel = self.site.buildProtocol(IPv4Address("TCP", "192.0.2.1", 4711))
            self.channel.makeConnection(self.wire)
            request = self.ask(data)
            request.booked_first = True
            request.respond(200, b"OK", [], 4, b"late")
            self.channel.connectionLost(Failure(ConnectionLost()))
            self.clock.advance(0)
            self.assertEqual((self.wire.received(), self.wire.value(), self.wire.disconnecting), (b"", b"", False))

    def test_before_a_refusal(self) -> None:
        """A malformed request after it does not cost the client its answer."""
        self.ask()
        self.answer(b"one")
        self.channel.dataReceived(b"garbage\r\n\r\n")
        received = self.wire.received()
        self.assertLess(received.index(b"one"), received.index(b"HTTP/1.1 400"))

    def test_a_client_that_has_left(self) -> None:
        self.ask()
        self.answer(b"one")
        self.channel.connectionLost(Failure(ConnectionLost()))
        self.clock.advance(0)
        self.assertEqual((self.wire.received(), self.wire.value()), (b"", b""))

    def test_a_client_that_is_cut_off(self) -> None:
        self.ask()
        self.answer(b"one")
        self.channel.abortConnection()
        self.clock.advance(0)
        self.assertEqual((self.wire.received(), self.wire.aborted), (b"", True))


class Requests(SynchronousTestCase):
    """A connection to a provider that has a turn."""

    def setUp(self) -> None:
        self.clock = Clock()
        coalescer = WriteCoalescer(self.clock)
        self.home = ConnectionOwner()
        self.wire = OnSocket()
        self.addCleanup(self.wire.close)
        self.connection = Connection(self.home, self.clock, MessageLimits(), secure=False, coalescer=coalescer)
        self.connection.makeConnection(self.wire)
        coalescer.wait(lambda: None)
        self.clock.advance(0)

    def ask(self, method: bytes = b"POST") -> PendingRequest:
        exchange = PendingRequest(method, b"%b / HTTP/1.1\r\n\r\n" % method, BytesBody(b"body"), raw=True)
        self.connection.send(exchange)
        return exchange

    def test_a_whole_request(self) -> None:
        exchange = self.ask()
        self.assertEqual((self.wire.received(), exchange.sent), (b"", False))
        self.clock.advance(0)
        self.assertEqual((self.wire.received(), exchange.sent), (b"POST / HTTP/1.1\r\n\r\nbody", True))

    def test_given_up_before_it_has_left(self) -> None:
        """Nothing of it leaves."""
        exchange = self.ask()
        exchange.responded.cancel()
        self.clock.advance(0)
        self.assertEqual((self.wire.received(), self.wire.aborted), (b"", True))
        self.failureResultOf(exchange.responded)

    def test_a_connection_that_is_lost_before_it_has_left(self) -> None:
        """Is no failure of a request, of which nothing was sent: it goes over another one, even a POST."""
        self.connection._used = 1
        exchange = self.ask()
        self.connection.connectionLost(Failure(ConnectionDone()))
        self.clock.advance(0)
        self.assertEqual((self.home.repeated, self.wire.received()), ([exchange], b""))
        self.assertNoResult(exchange.responded)

    def test_a_connection_that_is_lost_after_it_has_left(self) -> None:
        """A POST that may have arrived is never sent twice."""
        self.connection._used = 1
        exchange = self.ask()
        self.clock.advance(0)
        self.connection.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.home.repeated, [])
        self.failureResultOf(exchange.responded, errors.UpstreamUnreachable)


class BookedFirstTests(SynchronousTestCase):
    def test_it_waits_although_it_follows_none(self) -> None:
        """What a budget must know is in the books before its client can know that it is over."""
        clock, left = Clock(), list[str]()
        coalescer = WriteCoalescer(clock)
        clock.advance(1)
        self.assertFalse(coalescer.wait(lambda: left.append("usual")))
        clock.advance(1)
        self.assertTrue(coalescer.wait(lambda: left.append("booked"), always=True))
        self.assertEqual(left, [])
        clock.advance(0)
        self.assertEqual(left, ["booked"])
