"""One connection to a provider: every fault ends one way, and everything well-formed goes through untouched."""

from __future__ import annotations

import socket
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHandshakeListener, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseDone, ResponseFailed
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer, IResponse
from zope.interface import implementer
from zope.interface.verify import verifyObject

from llmproxy import errors
from llmproxy.wire import parser as http1
from llmproxy.wire.body_framing import LAST_CHUNK, chunk
from llmproxy.wire.client.connection import CLOSE_TIMEOUT_SECONDS, MAX_INTERIM_RESPONSES, Connection
from llmproxy.wire.client.pending_request import OwnedRequest, PendingRequest
from llmproxy.wire.client.raw_headers import RawHeaders
from llmproxy.wire.client.request_writer import LONG_BYTES, MAX_JOINED_BYTES, BytesBody, framing
from llmproxy.wire.client.response import Response
from llmproxy.wire.client.response_heads import WholeResponse
from llmproxy.wire.write_coalescing import WriteCoalescer
from tests.support.examples import examples

HEAD = b"POST /v1/x HTTP/1.1\r\nHost: h\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\n"
DONE, LOST = Failure(ConnectionDone()), Failure(ConnectionLost())


class ConnectionOwner:
    """Remembers what its connection told it."""

    def __init__(self) -> None:
        self.freed = 0
        self.is_left = False
        self.is_lost = False
        self.repeated: list[PendingRequest] = []

    def on_idle(self, connection: Connection) -> None:
        self.freed += 1

    def on_unusable(self, connection: Connection) -> None:
        self.is_left = True

    def on_given_up(self, connection: Connection) -> None:
        self.given_up = True

    def on_closed(self, connection: Connection) -> None:
        self.is_lost = True

    def repeat(self, exchange: PendingRequest) -> None:
        self.repeated.append(exchange)


class Wire(StringTransport):
    """A transport that may stand on a real socket."""

    def __init__(self, handle: socket.socket | None = None) -> None:
        super().__init__()
        self._handle = handle
        self.aborted = False

    def getHandle(self) -> socket.socket | None:
        return self._handle

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.no_delay = enabled

    def abortConnection(self) -> None:
        self.aborted = True


class Taker(Protocol):
    """Takes a body."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.ended: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        self.pieces.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        assert self.ended is None
        self.ended = reason

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def complete(self) -> bool:
        return self.ended is not None and self.ended.check(ResponseDone) is not None

    @property
    def cut(self) -> bool:
        return self.ended is not None and self.ended.check(ResponseFailed) is not None


@implementer(IBodyProducer)
class Body:
    """A body that is produced by the test."""

    def __init__(self, length: Any = UNKNOWN_LENGTH) -> None:
        self.length = length
        self.ended: Deferred[None] = Deferred()
        self.told: list[str] = []

    def startProducing(self, consumer: Any) -> Deferred[None]:
        self.consumer = consumer
        return self.ended

    def pauseProducing(self) -> None:
        self.told.append("pause")

    def resumeProducing(self) -> None:
        self.told.append("resume")

    def stopProducing(self) -> None:
        self.told.append("stop")


class ConnectionCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.open()

    def open(self, handle: socket.socket | None = None, **kwargs: Any) -> None:
        self.clock = Clock()
        self.home = ConnectionOwner()
        self.wire = Wire(handle)
        self.connection = Connection(self.home, self.clock, http1.MessageLimits(), secure=kwargs.get("secure", False))
        self.connection.makeConnection(self.wire)

    def ask(self, method: bytes = b"POST", body: Any = None, *, raw: bool = True) -> PendingRequest:
        exchange = PendingRequest(method, HEAD, body, raw=raw)
        self.connection.send(exchange)
        return exchange

    def answer(self, exchange: PendingRequest) -> Response:
        answer = self.successResultOf(exchange.responded)
        exchange.responded.addCallback(lambda _: answer)
        return answer

    def take(self, exchange: PendingRequest) -> Taker:
        taker = Taker()
        self.answer(exchange).deliverBody(taker)
        return taker

    def receive(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.connection.dataReceived(piece)

    def lose(self, reason: Failure = DONE) -> None:
        self.connection.connectionLost(reason)

    def assertBroken(self, exchange: PendingRequest) -> None:
        self.failureResultOf(exchange.responded, errors.UpstreamBroken)
        self.assertTrue(self.wire.aborted)
        self.assertTrue(self.home.is_left)
        self.assertEqual(self.home.freed, 0)


class AnswerTests(ConnectionCase):
    def test_interfaces(self) -> None:
        verifyObject(IHandshakeListener, self.connection)
        exchange = self.ask()
        self.receive(OK + b"Content-Length: 3\r\n\r\n")
        answer = self.answer(exchange)
        verifyObject(IResponse, answer)
        verifyObject(IPushProducer, answer)
        verifyObject(IBodyProducer, BytesBody(b""))
        self.assertTrue(self.wire.no_delay)

    def test_head_and_body_in_one_read(self) -> None:
        """The body is there in the same turn, whole, and the connection may already be used by then."""
        exchange = self.ask()
        self.receive(b"HTTP/1.1 529 Overloaded, sorry\r\nx-ODD: 1\r\nX-Odd:2\r\nContent-Length: 3\r\n\r\nabc")
        self.assertEqual(self.home.freed, 1)
        answer = self.answer(exchange)
        self.assertEqual((answer.code, answer.phrase, answer.version), (529, b"Overloaded, sorry", (b"HTTP", 1, 1)))
        self.assertEqual(answer.lines, [b"x-ODD: 1", b"X-Odd:2", b"Content-Length: 3"])
        self.assertEqual(answer.length, 3)
        taker = self.take(exchange)
        self.assertEqual(taker.pieces, [b"abc"])
        self.assertTrue(taker.complete)

    def test_pieces_pass_as_they_come(self) -> None:
        """What one read brings is one piece, in the same turn, also if it was several chunks."""
        exchange = self.ask()
        self.receive(OK + b"Transfer-Encoding: chunked\r\n\r\n")
        self.assertIs(self.answer(exchange).length, UNKNOWN_LENGTH)
        taker = self.take(exchange)
        self.receive(b"1\r\na\r\n2;x=y\r\nbc\r\n")
        self.assertEqual(taker.pieces, [b"abc"])
        self.receive(b"4\r\nd")
        self.assertEqual(taker.pieces, [b"abc", b"d"])
        self.receive(b"efg\r\n0\r\nTrailer: x\r\n\r\n")
        self.assertEqual(taker.pieces, [b"abc", b"d", b"efg"])
        self.assertTrue(taker.complete)
        self.assertEqual(self.home.freed, 1)

    @given(
        st.lists(st.binary(min_size=1, max_size=40), max_size=5),
        st.sampled_from(["length", "chunked", "close"]),
        st.lists(st.integers(1, 30), min_size=1, max_size=40),
    )
    @examples(200)
    def test_split_anywhere(self, parts: list[bytes], kind: str, steps: list[int]) -> None:
        """However the bytes are cut into reads, the body is the same."""
        self.open()
        body = b"".join(parts)
        if kind == "length":
            sent = OK + b"Content-Length: %d\r\n\r\n" % len(body) + body
        elif kind == "chunked":
            sent = OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(map(chunk, parts)) + LAST_CHUNK
        else:
            sent = OK + b"\r\n" + body
        exchange, taker, at = self.ask(), Taker(), 0
        exchange.responded.addCallback(lambda answer: answer.deliverBody(taker))
        for step in steps * len(sent):
            if at < len(sent):
                self.receive(sent[at : at + step])
                at += step
        if kind == "close":
            self.lose(DONE)
        self.assertEqual(taker.body, body)
        self.assertTrue(taker.complete)
        self.assertEqual(self.home.freed, 0 if kind == "close" else 1)

    def test_bodyless(self) -> None:
        """HEAD, 204 and 304 have no body, whatever their fields say; what they say is passed on."""
        for method, status, said, length in [
            (b"HEAD", b"200 OK", b"Content-Length: 5\r\n", 5),
            (b"HEAD", b"200 OK", b"Transfer-Encoding: chunked\r\n", UNKNOWN_LENGTH),
            (b"GET", b"204 No Content", b"", 0),
            (b"GET", b"304 Not Modified", b"Content-Length: 7\r\n", 7),
        ]:
            self.open()
            exchange = self.ask(method)
            self.receive(b"HTTP/1.1 " + status + b"\r\n" + said + b"\r\n")
            self.assertEqual(self.answer(exchange).length, length)
            taker = self.take(exchange)
            self.assertEqual((taker.body, taker.complete, self.home.freed), (b"", True, 1))

    def test_interim_answers_are_passed_over(self) -> None:
        exchange = self.ask()
        self.receive(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTT")
        self.assertNoResult(exchange.responded)
        self.receive(b"P/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        self.assertEqual(self.answer(exchange).code, 200)

    def test_headers_for_treq_and_for_others(self) -> None:
        for raw in (True, False):
            exchange = self.ask(raw=raw)
            self.receive(OK + b"A: 1\r\nContent-Encoding: gzip\r\na: 2 \r\nContent-Length: 0\r\n\r\n")
            headers = self.answer(exchange).headers
            self.assertEqual(headers.getRawHeaders(b"A"), [b"1", b"2"])
            self.assertEqual(isinstance(headers, RawHeaders), raw)
            self.assertEqual(headers.getRawHeaders(b"Content-Encoding"), [b"gzip"])

    def test_second_exchange(self) -> None:
        self.ask()
        self.receive(OK + b"Content-Length: 1\r\n\r\na")
        exchange = self.ask()
        self.receive(OK + b"Content-Length: 1\r\n\r\nb")
        self.assertEqual(self.take(exchange).body, b"b")
        self.assertEqual(self.wire.value(), HEAD * 2)

    def test_not_used_again(self) -> None:
        """After these answers the state of the connection is not beyond doubt, or its end was announced."""
        for sent in [
            OK + b"Connection: x, Close\r\nContent-Length: 1\r\n\r\na",
            b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na",
            OK + b"Content-Length: 1\r\n\r\naMORE",
            OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        ]:
            self.open()
            taker = self.take_of(sent)
            self.assertEqual((taker.body, taker.complete), (b"a", True))
            self.assertEqual(self.home.freed, 0)
            self.assertTrue(self.wire.disconnecting)
            self.assertTrue(self.home.is_left)

    def take_of(self, sent: bytes) -> Taker:
        exchange = self.ask()
        self.receive(sent)
        return self.take(exchange)

    def test_body_where_none_may_be(self) -> None:
        exchange = self.ask(b"HEAD")
        self.receive(OK + b"Content-Length: 4\r\n\r\nbody")
        self.assertEqual(self.take(exchange).body, b"")
        self.assertEqual(self.home.freed, 0)

    def test_closing_takes_no_longer_than_it_may(self) -> None:
        self.take_of(OK + b"Connection: close\r\nContent-Length: 0\r\n\r\n")
        self.clock.advance(CLOSE_TIMEOUT_SECONDS)
        self.assertTrue(self.wire.aborted)

    def test_closed_in_time(self) -> None:
        self.take_of(OK + b"Connection: close\r\nContent-Length: 0\r\n\r\n")
        self.lose()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertTrue(self.home.is_lost)

    def test_body_is_delivered_once(self) -> None:
        exchange = self.ask()
        self.receive(OK + b"Content-Length: 0\r\n\r\n")
        self.take(exchange)
        self.assertRaises(RuntimeError, self.answer(exchange).deliverBody, Taker())


class FaultTests(ConnectionCase):
    faults = (
        b"garbage",
        b"\x00\x01\x02",
        b"<html>HTTP/0.9</html>",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 99 Low\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 600 High\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1  200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        OK + b"Content-Length: -1\r\n\r\n",
        OK + b"Content-Length: +1\r\n\r\n",
        OK + b"Content-Length: 0x1\r\n\r\n",
        OK + b"Content-Length: 1, 1\r\n\r\n",
        OK + b"Content-Length: \r\n\r\n",
        OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
        OK + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        OK + b"Transfer-Encoding: gzip\r\n\r\n",
        OK + b"Transfer-Encoding: chunked, identity\r\n\r\n",
        OK + b"A: \x00\r\n\r\n",
        OK + b"A: b\rc\r\n\r\n",
        OK + b"A: b\nC: d\r\n\r\n",
        OK.replace(b"\r", b"") + b"Content-Length: 0\n\n",
        OK + b"A: b\r\n folded\r\n\r\n",
        OK + b"no colon\r\n\r\n",
        OK + b"Space : x\r\n\r\n",
        OK + b"X: " + b"x" * 70000,
        b"HTTP/1.1 100 Continue\r\n\r\n" * (MAX_INTERIM_RESPONSES + 1),
        b"HTTP/1.1 100 Continue\r\n\r\ngarbage",
    )

    def test_what_is_not_http(self) -> None:
        """One clear failure each, at once, and the connection is never used again."""
        for fault in self.faults:
            self.open()
            exchange = self.ask(b"GET")
            self.receive(fault)
            self.assertBroken(exchange)
            self.lose(LOST)
            self.assertEqual(self.home.repeated, [])

    def test_what_is_not_http_byte_by_byte(self) -> None:
        for fault in self.faults:
            self.open()
            exchange = self.ask(b"GET")
            self.receive(*[bytes([byte]) for byte in fault[:2000]], fault[2000:])
            self.assertBroken(exchange)

    def test_closed_before_an_answer(self) -> None:
        for reason in (DONE, LOST):
            self.open()
            exchange = self.ask(b"GET")
            self.lose(reason)
            failure = self.failureResultOf(exchange.responded, errors.UpstreamUnreachable)
            self.assertFalse(failure.value.nothing_sent)
            self.assertEqual(self.home.repeated, [])

    def test_closed_inside_the_head(self) -> None:
        for begun in (b"H", b"HTTP/1.1 200 OK\r\nConte", b"HTTP/1.1 100 Continue\r\n\r\n"):
            self.open()
            exchange = self.ask(b"GET")
            self.receive(begun)
            self.lose()
            self.failureResultOf(exchange.responded, errors.UpstreamBroken)

    def test_cut_bodies(self) -> None:
        """A body that did not come to its end is never taken for one that did."""
        for sent, reason in [
            (OK + b"Content-Length: 3\r\n\r\nab", DONE),
            (OK + b"Content-Length: 3\r\n\r\nab", LOST),
            (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n", DONE),
            (OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nab", DONE),
            (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n", DONE),
            (OK + b"\r\nab", LOST),
        ]:
            self.open()
            exchange = self.ask()
            self.receive(sent)
            taker = self.take(exchange)
            self.lose(reason)
            self.assertEqual(taker.body, b"ab")
            self.assertTrue(taker.cut)

    def test_close_delimited(self) -> None:
        exchange = self.ask()
        self.receive(OK + b"\r\nab", b"c")
        taker = self.take(exchange)
        self.assertIs(self.answer(exchange).length, UNKNOWN_LENGTH)
        self.lose(DONE)
        self.assertEqual((taker.body, taker.complete), (b"abc", True))

    def test_malformed_chunks_cut_the_body(self) -> None:
        for odd in (
            b"x\r\n",
            b"-1\r\n",
            b"0x1\r\na\r\n",
            b"1\r\nab",
            b"1 \r\na\r\n",
            b"\n",
            b"0\r\nbad trailer\r\n\r\n",
        ):
            self.open()
            exchange = self.ask()
            self.receive(OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
            taker = self.take(exchange)
            self.receive(b"1\r\nb\r\n" + odd)
            self.assertEqual(taker.body[:2], b"ab")
            self.assertTrue(taker.cut)
            self.assertTrue(self.wire.aborted)
            self.assertEqual(self.home.freed, 0)

    def test_a_malformed_chunk_in_a_read_of_its_own(self) -> None:
        """The same, where whole chunks came one by one before."""
        for odd in (b"x\r\nb\r\n", b"-1\r\nb\r\n", b"1_0\r\n0123456789abcdef\r\n", b" 1\r\nb\r\n"):
            self.open()
            exchange = self.ask()
            self.receive(OK + b"Transfer-Encoding: chunked\r\n\r\n")
            taker = self.take(exchange)
            self.receive(b"1\r\na\r\n")
            self.receive(odd)
            self.assertEqual((taker.body, taker.cut), (b"a", True), odd)

    def test_malformed_chunks_with_the_head(self) -> None:
        exchange = self.ask()
        self.receive(OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\nx\r\n")
        taker = self.take(exchange)
        self.assertEqual((taker.body, taker.cut), (b"a", True))

    def test_bytes_nobody_asked_for(self) -> None:
        self.receive(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
        self.assertTrue(self.wire.aborted)
        self.assertTrue(self.home.is_left)
        self.assertFalse(self.connection.quiet())

    @given(st.binary(max_size=300), st.integers(0, 20))
    @examples(300)
    def test_never_anything_else(self, data: bytes, cut: int) -> None:
        """Whatever comes in, the exchange ends one of the ways it may end."""
        self.open()
        exchange = self.ask(b"GET")
        self.receive(OK[:cut] + data)
        self.lose()
        ended: list[Any] = []
        exchange.responded.addBoth(ended.append)
        if not isinstance(ended[0], Response):
            self.assertTrue(ended[0].check(errors.UpstreamBroken, errors.UpstreamUnreachable))


class LeavingTests(ConnectionCase):
    def test_cancelled_before_the_answer(self) -> None:
        """The one who asked is gone: the provider is stopped at once."""
        exchange = self.ask()
        exchange.responded.cancel()
        self.failureResultOf(exchange.responded, CancelledError)
        self.assertTrue(self.wire.aborted)
        self.assertTrue(self.home.is_left)
        self.receive(OK + b"Content-Length: 0\r\n\r\n")
        self.lose(LOST)
        self.assertEqual(self.home.repeated, [])

    def test_stopped_in_the_body(self) -> None:
        for stop in ("stopProducing", "abortConnection", "loseConnection"):
            self.open()
            exchange = self.ask()
            self.receive(OK + b"Content-Length: 3\r\n\r\na")
            taker = self.take(exchange)
            getattr(taker.transport, stop)()
            self.assertTrue(self.wire.aborted)
            self.receive(b"bc")
            self.lose(LOST)
            self.assertEqual(taker.body, b"a")
            self.assertTrue(taker.cut)

    def test_stopped_after_the_end(self) -> None:
        """The connection is somebody else's by then."""
        exchange = self.ask()
        self.receive(OK + b"Content-Length: 1\r\n\r\na")
        taker = self.take(exchange)
        transport: Any = taker.transport
        transport.pauseProducing()
        transport.stopProducing()
        self.assertFalse(self.wire.aborted)
        self.assertEqual(self.wire.producerState, "producing")

    def test_stopped_within_a_piece(self) -> None:
        class Stopper(Taker):
            def dataReceived(self, data: bytes) -> None:
                super().dataReceived(data)
                self.transport.stopProducing()  # type: ignore[union-attr]

        exchange, taker = self.ask(), Stopper()
        self.receive(OK + b"Transfer-Encoding: chunked\r\n\r\n")
        self.answer(exchange).deliverBody(taker)
        self.receive(b"1\r\na\r\n", b"1\r\nb\r\n0\r\n\r\n")
        self.assertEqual((taker.body, self.wire.aborted, self.home.freed), (b"a", True, 0))

    def test_a_reader_that_fails(self) -> None:
        """A fault of whoever takes the body does not cost the pool a connection."""

        class Failing(Taker):
            def connectionLost(self, reason: Failure = connectionDone) -> None:
                raise RuntimeError

        exchange = self.ask()
        self.receive(OK + b"Content-Length: 3\r\n\r\na")
        self.answer(exchange).deliverBody(Failing())
        self.assertRaises(RuntimeError, self.lose)
        self.assertTrue(self.home.is_left)
        self.assertTrue(self.home.is_lost)


class PressureTests(ConnectionCase):
    def test_reader_pauses(self) -> None:
        """A reader that stops reading stops the provider."""
        exchange = self.ask()
        self.receive(OK + b"Content-Length: 9\r\n\r\na")
        transport: Any = self.take(exchange).transport
        transport.pauseProducing()
        self.assertEqual(self.wire.producerState, "paused")
        transport.resumeProducing()
        self.assertEqual(self.wire.producerState, "producing")

    def test_nobody_reads_yet(self) -> None:
        exchange = self.ask()
        self.receive(OK + b"Content-Length: 9\r\n\r\na")
        self.assertEqual(self.wire.producerState, "paused")
        self.take(exchange)
        self.assertEqual(self.wire.producerState, "producing")

    def test_reader_pauses_before_the_first_piece(self) -> None:
        class Slow(Taker):
            def connectionMade(self) -> None:
                self.transport.pauseProducing()  # type: ignore[union-attr]

        exchange = self.ask()
        self.receive(OK + b"Content-Length: 9\r\n\r\na")
        self.answer(exchange).deliverBody(Slow())
        self.assertEqual(self.wire.producerState, "paused")

    def test_idle_connections_are_read(self) -> None:
        """A pause ends with the answer it was meant for; else nobody would see the provider close."""
        exchange = self.ask()
        self.receive(OK + b"Content-Length: 2\r\n\r\na")
        taker = self.take(exchange)
        taker.transport.pauseProducing()  # type: ignore[union-attr]
        self.receive(b"b")
        self.assertTrue(taker.complete)
        self.assertEqual(self.wire.producerState, "producing")


class UploadTests(ConnectionCase):
    def test_framing(self) -> None:
        self.assertEqual(framing(b"GET", None), b"")
        self.assertEqual(framing(b"POST", None), b"Content-Length: 0")
        self.assertEqual(framing(b"GET", BytesBody(b"abc")), b"Content-Length: 3")
        self.assertEqual(framing(b"POST", Body()), b"Transfer-Encoding: chunked")

    def test_a_body_that_is_there_leaves_with_the_head(self) -> None:
        writes: list[bytes] = []
        self.wire.write = writes.append  # type: ignore[method-assign]
        self.ask(body=BytesBody(b"{}"))
        self.assertEqual(writes, [HEAD + b"{}"])
        self.assertIs(self.wire.producer, None)

    def test_the_head_does_not_wait_for_a_body_that_comes(self) -> None:
        body = Body(4)
        self.ask(body=body)
        self.assertEqual(self.wire.value(), HEAD)
        body.consumer.write(b"ab")
        self.assertEqual(self.wire.value(), HEAD + b"ab")
        body.consumer.write(b"cd")
        body.ended.callback(None)
        self.assertEqual(self.wire.value(), HEAD + b"abcd")
        self.assertIs(self.wire.producer, None)

    def test_chunked(self) -> None:
        body = Body()
        self.ask(body=body)
        body.consumer.write(b"abc")
        body.consumer.write(b"")
        body.ended.callback(None)
        self.assertEqual(self.wire.value(), HEAD + b"3\r\nabc\r\n0\r\n\r\n")

    def test_provider_stalls(self) -> None:
        """A provider that stops reading stops the client's upload."""
        body = Body(9)
        self.ask(body=body)
        producer: Any = self.wire.producer
        self.assertTrue(self.wire.streaming)
        producer.pauseProducing()
        producer.resumeProducing()
        self.assertEqual(body.told, ["pause", "resume"])

    def test_upload_fails(self) -> None:
        """The request fails with the very reason, and the provider sees that it is incomplete."""
        body = Body()
        exchange = self.ask(body=body)
        body.consumer.write(b"abc")
        body.ended.errback(errors.RequestTooLarge())
        self.failureResultOf(exchange.responded, errors.RequestTooLarge)
        self.assertTrue(self.wire.aborted)
        self.assertNotIn(LAST_CHUNK, self.wire.value())

    def test_upload_cannot_begin(self) -> None:
        class Stubborn(Body):
            def startProducing(self, consumer: Any) -> Deferred[None]:
                raise errors.ClientGone

        exchange = self.ask(body=Stubborn())
        self.failureResultOf(exchange.responded, errors.ClientGone)
        self.assertTrue(self.wire.aborted)

    def test_wrong_length(self) -> None:
        for sent in (b"ab", b"abcd"):
            self.open()
            body = Body(3)
            exchange = self.ask(body=body)
            body.consumer.write(sent)
            body.ended.callback(None)
            self.failureResultOf(exchange.responded, errors.BodyUnreadable)
            self.assertTrue(self.wire.aborted)
            self.assertNotIn(b"d", self.wire.value()[len(HEAD) :])

    def test_answer_before_the_upload_is_finished(self) -> None:
        """It is passed on, the upload is stopped, and the connection closed after the answer."""
        body = Body(9)
        exchange = self.ask(body=body)
        body.consumer.write(b"abc")
        self.receive(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nn")
        self.assertEqual(body.told, ["stop"])
        self.assertIs(self.wire.producer, None)
        taker = self.take(exchange)
        self.assertFalse(self.wire.disconnecting)
        body.consumer.write(b"def")
        body.ended.errback(errors.ClientGone())
        self.receive(b"o")
        self.assertEqual((taker.body, taker.complete), (b"no", True))
        self.assertTrue(self.wire.disconnecting)
        self.assertEqual((self.home.freed, self.wire.value()), (0, HEAD + b"abc"))

    def test_interim_answer_does_not_stop_the_upload(self) -> None:
        body = Body(3)
        exchange = self.ask(body=body)
        self.receive(b"HTTP/1.1 100 Continue\r\n\r\n")
        body.consumer.write(b"abc")
        body.ended.callback(None)
        self.receive(OK + b"Content-Length: 0\r\n\r\n")
        self.take(exchange)
        self.assertEqual((body.told, self.home.freed), ([], 1))

    def test_written_but_held_by_the_transport(self) -> None:
        """A provider that answers before it has read what was written is not asked again on that connection."""
        for drained in (True, False):
            self.open()
            body = Body(3)
            exchange = self.ask(body=body)
            body.consumer.write(b"abc")
            producer: Any = self.wire.producer
            producer.pauseProducing()
            body.ended.callback(None)
            if drained:
                producer.resumeProducing()
            self.receive(OK + b"Content-Length: 0\r\n\r\n")
            self.take(exchange)
            self.assertEqual(self.home.freed, 1 if drained else 0)
            self.assertIs(self.wire.producer, None)
            self.assertNotIn("stop", body.told)

    def test_cancelled_upload(self) -> None:
        body = Body()
        exchange = self.ask(body=body)
        exchange.responded.cancel()
        self.failureResultOf(exchange.responded, CancelledError)
        self.assertEqual((body.told, self.wire.aborted), (["stop"], True))

    def test_connection_lost_in_the_upload(self) -> None:
        body = Body()
        exchange = self.ask(body=body)
        self.lose(LOST)
        self.assertEqual(body.told, ["stop"])
        self.failureResultOf(exchange.responded, errors.UpstreamUnreachable)


class RaceTests(ConnectionCase):
    """The provider closes a kept connection in the instant in which we use it."""

    def use(self, handle: socket.socket | None = None) -> None:
        self.open(handle)
        self.ask(b"GET")
        self.receive(OK + b"Content-Length: 0\r\n\r\n")

    def pair(self) -> tuple[socket.socket, socket.socket]:
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        ours.setblocking(False)
        return ours, theirs

    def test_idempotent(self) -> None:
        for method in (b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS"):
            self.use()
            body = BytesBody(b"x") if method == b"PUT" else None
            exchange = self.ask(method, body)
            self.lose()
            self.assertEqual(self.home.repeated, [exchange])
            self.assertNoResult(exchange.responded)

    def test_only_once(self) -> None:
        self.use()
        exchange = self.ask(b"GET")
        exchange.repeat()
        self.lose()
        self.assertEqual(self.home.repeated, [])
        self.failureResultOf(exchange.responded, errors.UpstreamUnreachable)

    def test_post_that_may_have_arrived(self) -> None:
        self.use()
        exchange = self.ask(b"POST", BytesBody(b"{}"))
        self.lose()
        self.assertEqual(self.home.repeated, [])
        failure = self.failureResultOf(exchange.responded, errors.UpstreamUnreachable)
        self.assertFalse(failure.value.nothing_sent)

    def test_post_that_cannot_have_arrived(self) -> None:
        """The operating system took not one byte of it."""
        for body in (BytesBody(b"{}"), Body(2), None):
            ours, theirs = self.pair()
            self.use(ours)
            theirs.close()
            exchange = self.ask(b"POST", body)
            self.lose()
            self.assertEqual(self.home.repeated, [exchange])

    def test_post_of_which_a_part_may_have_arrived(self) -> None:
        ours, theirs = self.pair()
        self.use(ours)
        exchange = self.ask(b"POST", BytesBody(b"x" * 10_000_000))
        self.assertTrue(theirs.recv(10))
        self.lose()
        self.assertEqual(self.home.repeated, [])
        self.failureResultOf(exchange.responded, errors.UpstreamUnreachable)

    def test_body_that_cannot_be_had_again(self) -> None:
        self.use()
        exchange = self.ask(b"PUT", Body(2))
        self.lose()
        self.assertEqual(self.home.repeated, [])
        self.failureResultOf(exchange.responded, errors.UpstreamUnreachable)

    def test_answer_had_begun(self) -> None:
        self.use()
        exchange = self.ask(b"GET")
        self.receive(b"H")
        self.lose()
        self.assertEqual(self.home.repeated, [])
        self.failureResultOf(exchange.responded, errors.UpstreamBroken)

    def test_fresh_connection(self) -> None:
        exchange = self.ask(b"GET")
        self.lose()
        self.assertEqual(self.home.repeated, [])
        self.failureResultOf(exchange.responded, errors.UpstreamUnreachable)

    def test_order_on_the_wire(self) -> None:
        """What the operating system does not take at once follows through the transport, nothing overtakes it."""
        ours, theirs = self.pair()
        self.use(ours)
        body = Body(8_000_001)
        self.ask(b"POST", body)
        body.consumer.write(b"a" * 8_000_000)
        direct = self.drain(theirs)
        body.consumer.write(b"b")
        direct += self.drain(theirs)
        self.assertEqual(direct + self.wire.value(), HEAD * 2 + b"a" * 8_000_000 + b"b")

    def drain(self, theirs: socket.socket) -> bytes:
        received = b""
        theirs.setblocking(False)
        while True:
            try:
                received += theirs.recv(1_000_000)
            except BlockingIOError:
                return received

    def test_quiet(self) -> None:
        """A connection on which something has come, be it the end, is not quiet."""

        class Polled(Wire):
            def fileno(self) -> int:
                handle = self.getHandle()
                assert handle is not None
                return handle.fileno()

        for act in (lambda theirs: theirs.close(), lambda theirs: theirs.send(b"x")):
            ours, theirs = self.pair()
            connection = Connection(ConnectionOwner(), Clock(), http1.MessageLimits(), secure=False)
            connection.makeConnection(Polled(ours))
            self.assertTrue(connection.quiet())
            act(theirs)
            self.assertFalse(connection.quiet())


class HandshakeTests(ConnectionCase):
    def test_secure_connection_opens_after_the_handshake(self) -> None:
        self.open(secure=True)
        self.assertNoResult(self.connection.opened)
        self.connection.handshakeCompleted()
        self.assertIs(self.successResultOf(self.connection.opened), self.connection)

    def test_handshake_fails(self) -> None:
        self.open(secure=True)
        self.lose(LOST)
        self.failureResultOf(self.connection.opened, ConnectionLost)
        self.assertTrue(self.home.is_lost)

    def test_given_up_in_the_handshake(self) -> None:
        self.open(secure=True)
        self.connection.opened.cancel()
        self.failureResultOf(self.connection.opened, CancelledError)
        self.assertTrue(self.wire.aborted)


class OwnedRequestTests(ConnectionCase):
    def test_the_owner_is_told_before_anything_leaves(self) -> None:
        """Whether it leaves at the end of the turn, at once, in pieces or in one call of the system."""
        for with_socket in (False, True):
            for coalescing in (False, True):
                for size in (3, MAX_JOINED_BYTES, LONG_BYTES + 1):
                    own, peer = socket.socketpair()
                    self.addCleanup(own.close)
                    self.addCleanup(peer.close)
                    own.setblocking(False)
                    peer.setblocking(False)
                    self.open(own if with_socket else None)
                    self.connection._coalescer = WriteCoalescer(self.clock) if coalescing else None
                    owner = Owner(self.wire, peer)
                    request = OwnedRequest(b"POST", HEAD, BytesBody(b"x" * size), raw=True)
                    request.owner = owner
                    self.connection.send(request)
                    self.clock.advance(0)
                    self.assertEqual(owner.left_before[0], b"")
                    self.assertNotEqual(owner.left(), b"")


class Owner:
    """Looks at what has left when it is told."""

    def __init__(self, wire: Wire, peer: socket.socket) -> None:
        self._wire = wire
        self._peer = peer
        self.left_before: list[bytes] = []

    def left(self) -> bytes:
        try:
            return self._wire.value() + self._peer.recv(100)
        except BlockingIOError:
            return self._wire.value()

    def leaving(self) -> None:
        self.left_before.append(self.left())

    def accepts(self, request: Any, response: WholeResponse) -> bool:
        return False

    def complete(self, request: Any) -> None:
        """It never is."""

    def responded(self, request: Any, response: Response) -> None:
        """There is none."""

    def failed(self, request: Any, error: BaseException) -> None:
        """It does not."""


class BytesBodyTests(SynchronousTestCase):
    def test_again_and_again(self) -> None:
        body, taken = BytesBody(b"abc"), StringTransport()
        for _ in range(2):
            self.successResultOf(body.startProducing(taken))
        self.assertEqual((taken.value(), body.length), (b"abcabc", 3))
