"""The agent under treq, over real sockets, as any user of an C{IAgent} sees it."""

from __future__ import annotations

import gzip
import socket
from contextlib import ExitStack
from typing import Any

from treq.client import HTTPClient
from twisted.internet import reactor as _reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IHostnameResolver
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.client import ResponseDone, readBody
from twisted.web.error import SchemeNotSupported
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent
from zope.interface import implementer
from zope.interface.verify import verifyObject

from llmproxy import errors
from llmproxy.wire.client.agent import Agent, request_head
from llmproxy.wire.client.request_writer import BytesBody
from llmproxy.wire.client.transport import RawHeaders
from tests.unit.wire.provider import Provider

reactor: Any = _reactor
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class HeadTests(SynchronousTestCase):
    def test_as_given(self) -> None:
        head = request_head(b"POST", b"/a?b", [b"hOST: h", b"X:y", b"X: z "], b"Content-Length: 1")
        self.assertEqual(head, b"POST /a?b HTTP/1.1\r\nhOST: h\r\nX:y\r\nX: z \r\nContent-Length: 1\r\n\r\n")
        self.assertEqual(request_head(b"GET", b"/", [], b""), b"GET / HTTP/1.1\r\n\r\n")

    def test_nothing_is_smuggled(self) -> None:
        for method, target, line in [
            (b"GET", b"/", b"A: b\r\nC: d"),
            (b"GET", b"/", b"A: b\nC: d"),
            (b"GET", b"/", b"A: b\rc"),
            (b"GET", b"/", b"A: b\0"),
            (b"GET", b"/ HTTP/1.1\r\nX: y", b"A: b"),
            (b"GET", b"/a b", b"A: b"),
            (b"GET /", b"/", b"A: b"),
        ]:
            self.assertRaises(ValueError, request_head, method, target, [line], b"")


class AddressTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.agent = Agent(self.reactor, connect_timeout=7)

    def test_interface(self) -> None:
        verifyObject(IAgent, self.agent)

    def test_where_to(self) -> None:
        for uri, where in [
            (b"http://192.0.2.1/", ("192.0.2.1", 80)),
            (b"http://192.0.2.1:81?x", ("192.0.2.1", 81)),
            (b"https://192.0.2.1/", ("192.0.2.1", 443)),
            (b"http://[2001:db8::1]:82/", ("2001:db8::1", 82)),
        ]:
            self.agent.request(b"GET", uri).addErrback(lambda _: None)
            host, port, _, timeout, _ = self.reactor.tcpClients.pop()
            self.assertEqual((host, port, timeout), (*where, 7))

    def test_where_not_to(self) -> None:
        for uri, error in [
            (b"ftp://h/", SchemeNotSupported),
            (b"http:///x", ValueError),
            (b"http://user@h/", ValueError),
            (b"/x", SchemeNotSupported),
            (b"http://192.0.2.1/a b", ValueError),
        ]:
            self.failureResultOf(self.agent.request(b"GET", uri), error)

    def test_after_closing(self) -> None:
        self.successResultOf(self.agent.close())
        self.failureResultOf(self.agent.request(b"GET", b"http://192.0.2.1/"), errors.Draining)


class LoopbackCase(TestCase):
    def setUp(self) -> None:
        self.provider = Provider()
        self.port = reactor.listenTCP(0, self.provider, interface="127.0.0.1")
        self.agent = Agent(reactor)
        self.url = b"http://127.0.0.1:%d" % self.port.getHost().port

    async def tearDown(self) -> None:
        """Nothing is left behind."""
        await self.agent.close()
        await self.port.stopListening()
        for line in self.provider.lines:
            await line.closed


class AgentTests(LoopbackCase):
    async def test_ordinary_headers(self) -> None:
        """C{Host} is added, the framing is the agent's own."""
        self.provider.answers.append(OK)
        headers = Headers({b"X-A": [b"1", b"2"], b"Content-Length": [b"99"], b"Transfer-Encoding": [b"chunked"]})
        response = await self.agent.request(b"POST", self.url + b"/v1?x=%2F", headers, BytesBody(b"{}"))
        self.assertEqual(await readBody(response), b"ok")
        host = b"Host: " + self.url[7:]
        self.assertEqual(
            self.provider.requests,
            [b"POST /v1?x=%2F HTTP/1.1\r\n" + host + b"\r\nX-A: 1\r\nX-A: 2\r\nContent-Length: 2\r\n\r\n{}"],
        )

    async def test_raw_headers(self) -> None:
        self.provider.answers.append(OK)
        lines = [b"hOSt: provider", b"x-a:1", b"X-A:  2"]
        response = await self.agent.request(b"GET", self.url + b"/x", RawHeaders(lines))
        self.assertEqual(await readBody(response), b"ok")
        self.assertEqual(self.provider.requests, [b"GET /x HTTP/1.1\r\nhOSt: provider\r\nx-a:1\r\nX-A:  2\r\n\r\n"])

    async def test_under_plain_treq(self) -> None:
        """It decodes, follows redirects and keeps cookies, as treq does for everybody."""
        body = gzip.compress(b"decoded")
        self.provider.answers += [
            b"HTTP/1.1 303 See Other\r\nLocation: /there\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body),
        ]
        response = await HTTPClient(self.agent).post(self.url + b"/here", json={"a": 1}, headers={"X-A": "b"})
        self.assertEqual(await response.content(), b"decoded")
        self.assertIn(b'{"a":1}', self.provider.requests[0])
        self.assertIn(b"Accept-Encoding: gzip\r\n", self.provider.requests[0])
        self.assertTrue(self.provider.requests[1].startswith(b"GET /there HTTP/1.1\r\n"))
        self.assertIn(b"Cookie: a=b\r\n", self.provider.requests[1])
        self.assertEqual(len(self.provider.lines), 1)

    async def test_one_connection_for_many_requests(self) -> None:
        for number in range(5):
            self.provider.answers.append(OK)
            response = await self.agent.request(b"GET", self.url + b"/%d" % number)
            self.assertEqual(await readBody(response), b"ok")
        self.assertEqual(len(self.provider.lines), 1)

    async def test_name_is_looked_up(self) -> None:
        self.provider.answers.append(OK)
        url = b"http://localhost:%d/" % self.port.getHost().port
        response = await self.agent.request(b"GET", url)
        self.assertEqual(await readBody(response), b"ok")

    async def test_closed_between_two_requests(self) -> None:
        """The provider closed the kept connection: a POST goes out on a fresh one, as nothing had left."""
        self.provider.answers += [OK, OK]
        self.provider.closing = True
        for _ in range(2):
            response = await self.agent.request(b"POST", self.url, None, BytesBody(b"{}"))
            self.assertEqual(await readBody(response), b"ok")
        self.assertEqual(len(self.provider.lines), 2)
        self.assertEqual(len(self.provider.requests), 2)

    async def test_closed_delimited(self) -> None:
        self.provider.answers.append(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 300_000)
        self.provider.closing = True
        response = await self.agent.request(b"GET", self.url)
        self.assertEqual(len(await readBody(response)), 300_000)

    async def test_refused(self) -> None:
        port = reactor.listenTCP(0, Provider(), interface="127.0.0.1")
        number = port.getHost().port
        await port.stopListening()
        with self.assertRaises(errors.UpstreamUnreachable) as caught:
            await self.agent.request(b"GET", b"http://127.0.0.1:%d/" % number)
        self.assertTrue(caught.exception.nothing_sent)

    async def test_client_leaves(self) -> None:
        """The provider's connection is closed at once."""
        asked = self.agent.request(b"GET", self.url)
        while not self.provider.lines:
            await turn()
        asked.cancel()
        with self.assertRaises(CancelledError):
            await asked
        await self.provider.lines[0].closed

    async def test_large_bodies(self) -> None:
        """Much more than any buffer holds, both ways."""
        body = bytes(range(256)) * 20_000
        self.provider.answers.append(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        response = await self.agent.request(b"POST", self.url, None, BytesBody(body))
        self.assertEqual(await readBody(response), body)
        self.assertTrue(self.provider.requests[0].endswith(b"\r\n\r\n" + body))

    async def test_slow_reader_holds_the_provider(self) -> None:
        """What nobody reads stays with the provider, beyond what the operating system holds."""
        size = 30_000_000
        self.provider.answers.append(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (size, b"x" * size))
        response = await self.agent.request(b"GET", self.url)
        reader = Reader()
        response.deliverBody(reader)
        reader.transport.pauseProducing()  # type: ignore[union-attr]
        for _ in range(200):
            await turn()
        self.assertLess(reader.count, 200_000)
        reader.transport.resumeProducing()  # type: ignore[union-attr]
        await reader.ended
        self.assertEqual(reader.count, size)

    async def test_early_answer(self) -> None:
        """The provider refuses an upload half-way: its answer arrives, and the connection is not used again."""
        body = BytesBody(b"x" * 20_000_000)
        asked = self.agent.request(b"POST", self.url, None, body)
        while not (self.provider.lines and self.provider.lines[0].received):
            await turn()
        line = self.provider.lines[0]
        line.transport.pauseProducing()  # type: ignore[union-attr]
        line.transport.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")  # type: ignore[union-attr]
        response = await asked
        self.assertEqual((response.code, await readBody(response)), (413, b"no"))
        self.provider.answers.append(OK)
        again = await self.agent.request(b"GET", self.url)
        self.assertEqual(await readBody(again), b"ok")
        self.assertEqual(len(self.provider.lines), 2)
        line.transport.abortConnection()  # type: ignore[union-attr]


class Reader(Protocol):
    """Counts."""

    def __init__(self) -> None:
        self.count = 0
        self.ended: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.count += len(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        assert reason.check(ResponseDone), reason
        self.ended.callback(None)


def turn() -> Deferred[None]:
    """Let the reactor turn once."""
    turned: Deferred[None] = Deferred()
    reactor.callLater(0, turned.callback, None)
    return turned


@implementer(IHostnameResolver)
class Names:
    """Knows the addresses of one name, in this order."""

    def __init__(self, addresses: list[str]) -> None:
        self.addresses = addresses
        self.asked = 0

    def resolveHostName(self, receiver: Any, name: str, portNumber: int = 0, *more: Any, **kw: Any) -> Any:
        self.asked += 1
        receiver.resolutionBegan(HostResolution(name))
        for address in self.addresses:
            receiver.addressResolved(IPv4Address("TCP", address, portNumber))
        receiver.resolutionComplete()
        return receiver


class HostResolution:
    def __init__(self, name: str) -> None:
        self.name = name

    def cancel(self) -> None:
        """It is over at once."""


class SeveralAddresses(TestCase):
    """A provider's name that stands for several addresses, on real sockets."""

    timeout = 20

    def setUp(self) -> None:
        self.provider = Provider()
        self.provider.answers += [OK] * 3
        self.port = reactor.listenTCP(0, self.provider, interface="127.0.0.1")
        self.addCleanup(self.port.stopListening)
        self.agent = Agent(reactor, connect_timeout=5)
        self.addCleanup(self.agent.close)

    def named(self, *addresses: str) -> bytes:
        """A name that stands for these addresses."""
        names = Names(list(addresses))
        before = reactor.installNameResolver(names)
        self.addCleanup(reactor.installNameResolver, before)
        return b"http://many.test:%d/" % self.port.getHost().port

    async def test_the_first_one_refuses(self) -> None:
        url = self.named("127.0.0.9", "127.0.0.8", "127.0.0.1")
        response = await self.agent.request(b"POST", url, None, BytesBody(b"{}"))
        self.assertEqual(await readBody(response), b"ok")
        self.assertEqual(len(self.provider.requests), 1)

    async def test_the_first_one_says_nothing(self) -> None:
        """The next one is tried after a moment, long before the first has timed out; what is late is let go."""
        number = self.port.getHost().port
        with ExitStack() as held:
            full = held.enter_context(socket.socket())
            full.bind(("127.0.0.9", number))
            full.listen(0)
            for _ in range(3):  # as many as it takes, and more: from now on nobody gets an answer
                waiting = held.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(("127.0.0.9", number))
            url = self.named("127.0.0.9", "127.0.0.1")
            began = reactor.seconds()
            response = await self.agent.request(b"POST", url, None, BytesBody(b"{}"))
            self.assertEqual(await readBody(response), b"ok")
            self.assertLess(reactor.seconds() - began, 2)
        self.assertEqual(len(self.provider.requests), 1)

    async def test_none_of_them_can_be_reached(self) -> None:
        url = self.named("127.0.0.9", "127.0.0.8")
        with self.assertRaises(errors.UpstreamUnreachable) as caught:
            await self.agent.request(b"POST", url, None, BytesBody(b"{}"))
        self.assertTrue(caught.exception.nothing_sent)

    async def test_a_name_that_stands_for_nothing(self) -> None:
        with self.assertRaises(errors.UpstreamUnreachable) as caught:
            await self.agent.request(b"POST", self.named(), None, BytesBody(b"{}"))
        self.assertIn("could not be resolved", caught.exception.message)
