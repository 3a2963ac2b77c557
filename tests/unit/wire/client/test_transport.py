"""Under treq's client: what goes out is what was given, what comes back is what was sent."""

from __future__ import annotations

import gzip
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.client import readBody

from llmproxy import errors
from llmproxy.wire.client.agent import Agent
from llmproxy.wire.client.transport import BytesBody, Origin, Response, Transport
from tests.unit.wire.provider import Provider

reactor: Any = _reactor
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class OriginTests(SynchronousTestCase):
    def test_netloc(self) -> None:
        for origin, url in [
            (Origin("https", "api.openai.com", 443), "https://api.openai.com"),
            (Origin("http", "api.openai.com", 443), "http://api.openai.com:443"),
            (Origin("http", "localhost", 80), "http://localhost"),
            (Origin("http", "::1", 8080), "http://[::1]:8080"),
        ]:
            self.assertEqual(origin.url, url.encode())
            self.assertEqual(origin.netloc, url.partition("://")[2])


class CallerTests(TestCase):
    def setUp(self) -> None:
        self.provider = Provider()
        self.port = reactor.listenTCP(0, self.provider, interface="127.0.0.1")
        self.agent = Agent(reactor)
        self.caller = Transport(self.agent)
        self.origin = Origin("http", "127.0.0.1", self.port.getHost().port)

    async def tearDown(self) -> None:
        await self.agent.close()
        await self.port.stopListening()
        for line in self.provider.lines:
            await line.closed

    async def send(
        self, answer: bytes = OK, *lines: bytes, method: bytes = b"POST", target: bytes = b"/", body: Any = None
    ) -> tuple[Response, bytes]:
        self.provider.answers.append(answer)
        got = await self.caller.send(method, self.origin, target, list(lines), body)
        self.assertIsInstance(got, Response)
        return got, await readBody(got)

    async def test_request_exactly_as_given(self) -> None:
        """Names, order, duplicates, spaces and the target; only the framing is added, and nothing else."""
        lines = [b"hOST: provider.example", b"x-b: 2", b"X-A:1", b"x-B:  3 ", b"accept-encoding: zstd", b"COOKIE: c=d"]
        target = b"/v1/models/a%2Fb:gen//x/../y?x=%41&&y=+&z=[1]|{}^`"
        await self.send(OK, *lines, target=target, body=BytesBody(b"{}"))
        head = b"\r\n".join([b"POST " + target + b" HTTP/1.1", *lines, b"Content-Length: 2"])
        self.assertEqual(self.provider.requests, [head + b"\r\n\r\n{}"])

    async def test_no_cookie_is_kept(self) -> None:
        """One tenant's cookie never goes out with the next tenant's request."""
        answer = b"HTTP/1.1 200 OK\r\nSet-Cookie: session=tenant-1; Path=/\r\nContent-Length: 0\r\n\r\n"
        for _ in range(2):
            got, _ = await self.send(answer, b"Host: h")
            self.assertIn(b"Set-Cookie: session=tenant-1; Path=/", got.lines)
        self.assertNotIn(b"cookie", b"".join(self.provider.requests).lower())

    async def test_no_encoding_is_asked_for(self) -> None:
        """What the client did not say it can read, the provider is not told either."""
        await self.send(OK, b"Host: h")
        await self.send(OK, b"Host: h", b"Accept-Encoding: identity")
        without, own = self.provider.requests
        self.assertNotIn(b"accept-encoding", without.lower())
        self.assertEqual(own.lower().count(b"accept-encoding"), 1)
        self.assertIn(b"\r\nAccept-Encoding: identity\r\n", own)

    async def test_nothing_is_decoded(self) -> None:
        for encoding, body in [(b"gzip", gzip.compress(b"x" * 999)), (b"gzip", b"no gzip at all"), (b"br, gzip", b"?")]:
            answer = b"HTTP/1.1 200 OK\r\nContent-Encoding: %b\r\nContent-Length: %d\r\n\r\n%b"
            got, received = await self.send(answer % (encoding, len(body), body), b"Host: h")
            self.assertEqual((received, got.length), (body, len(body)))
            self.assertIn(b"Content-Encoding: " + encoding, got.lines)

    async def test_no_header_is_added_to_an_answer(self) -> None:
        got, _ = await self.send(OK, b"Host: h")
        self.assertEqual(got.lines, [b"Content-Length: 2"])
        self.assertEqual(list(got.headers.getAllRawHeaders()), [(b"Content-Length", [b"2"])])

    async def test_redirects_are_passed_on(self) -> None:
        """They never take a provider key elsewhere."""
        for status in (301, 302, 303, 307, 308):
            url = self.origin.url
            answer = b"HTTP/1.1 %d Moved\r\nLocation: %b/elsewhere\r\nContent-Length: 2\r\n\r\ngo" % (status, url)
            got, body = await self.send(answer, b"Host: h", b"Authorization: Bearer key")
            self.assertEqual((got.code, body), (status, b"go"))
        self.assertEqual(len(self.provider.requests), 5)
        self.assertNotIn(b"/elsewhere", b"".join(self.provider.requests))

    async def test_status_and_reason(self) -> None:
        got, _ = await self.send(b"HTTP/1.1 529 Overloaded \xc3\xa9\r\nContent-Length: 0\r\n\r\n", b"Host: h")
        self.assertEqual((got.code, got.phrase), (529, b"Overloaded \xc3\xa9"))

    async def test_empty_body(self) -> None:
        await self.send(OK, b"Host: h", body=BytesBody(b""))
        await self.send(OK, b"Host: h", method=b"GET")
        self.assertEqual(
            self.provider.requests,
            [b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"],
        )

    async def test_head(self) -> None:
        got, body = await self.send(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n", b"Host: h", method=b"HEAD")
        self.assertEqual((got.length, body), (99, b""))
        await self.send(OK, b"Host: h")
        self.assertEqual(len(self.provider.lines), 1)

    async def test_garbage(self) -> None:
        self.provider.answers.append(b"SMTP ready\r\n")
        with self.assertRaises(errors.UpstreamBroken):
            await self.caller.send(b"GET", self.origin, b"/", [b"Host: h"], None)

    async def test_a_target_that_would_be_two(self) -> None:
        """Nothing is sent that could be read as more than was asked."""
        for target in (b"/ HTTP/1.1\r\nX: y", b"/a b"):
            with self.assertRaises(ValueError):
                await self.caller.send(b"GET", self.origin, target, [b"Host: h"], None)
        self.assertEqual(self.provider.requests, [])

    async def test_cancelled(self) -> None:
        """The cancellation goes through to the connection."""
        sent = self.caller.send(b"GET", self.origin, b"/", [b"Host: h"], None)
        sent.cancel()
        with self.assertRaises(CancelledError):
            await sent
