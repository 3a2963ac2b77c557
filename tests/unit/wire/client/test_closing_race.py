"""A provider closes a kept connection in the instant in which it is used: over real sockets, plain and with TLS.

The connection is taken from the pool, which finds it sound; then the provider acts; then the request is sent.
"""

from __future__ import annotations

import socket
import struct
import sys
from pathlib import Path
from typing import Any
from unittest import skipUnless

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from twisted.web.client import readBody

from llmproxy import errors
from llmproxy.http.origin import Origin
from llmproxy.wire.client.agent import Agent
from llmproxy.wire.client.pending_request import PendingRequest
from llmproxy.wire.client.request_writer import BytesBody
from llmproxy.wire.socket_state import tcp_transport
from tests.unit.wire.authority import Authority
from tests.unit.wire.provider import Line, Provider

reactor: Any = _reactor
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SMALL, LARGE = b"x" * 200, b"y" * 200_000


class RaceCase(TestCase):
    def setUp(self) -> None:
        self.provider = Provider()
        self.provider.answers += [OK, OK]
        self.agent, self.origin = self.begin()

    def begin(self) -> tuple[Agent, Origin]:
        self.port = reactor.listenTCP(0, self.provider, interface="127.0.0.1")
        return Agent(reactor), Origin("http", "127.0.0.1", self.port.getHost().port)

    async def tearDown(self) -> None:
        await self.agent.close()
        await self.port.stopListening()
        for line in self.provider.lines:
            await line.closed

    def post(self, body: bytes) -> PendingRequest:
        head = b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(body)
        return PendingRequest(b"POST", head, BytesBody(body), raw=True)

    async def use(self) -> Any:
        """The connection of a request that is over, as the pool sends another on it."""
        pool = self.agent.pool(self.origin)
        first = self.post(b"{}")
        pool.send(first)
        await readBody(await first.responded)
        await deferLater(reactor, 0.05, lambda: None)  # what TLS has to say after its handshake
        connection = pool.take()
        assert connection is not None
        return connection

    def far_end(self) -> Any:
        line: Line = self.provider.lines[0]
        handle: socket.socket = tcp_transport(line.transport).socket
        return handle

    async def response(self, request: PendingRequest) -> bytes:
        waited: Deferred[Any] = request.responded
        return await readBody(await waited.addTimeout(20, reactor))


@skipUnless(sys.platform == "linux", "Only Linux is asked what was acknowledged.")
class PlainTests(RaceCase):
    async def test_closed_before_any_byte_came(self) -> None:
        """A small POST, and one that leaves in pieces."""
        for body in (SMALL, LARGE):
            connection, request = await self.use(), self.post(body)
            self.far_end().shutdown(socket.SHUT_RDWR)
            connection.send(request)
            self.assertTrue(request.sent)
            self.assertEqual(await self.response(request), b"ok")
            self.assertEqual(len(self.provider.requests), 2)
            self.assertTrue(self.provider.requests[1].endswith(body))
            await self.tearDown()
            self.setUp()

    async def test_closed_after_all_was_read(self) -> None:
        """It is not sent again: the provider may have done what it was asked to do."""
        for body in (SMALL, LARGE):
            connection, request = await self.use(), self.post(body)
            self.provider.answers.clear()
            connection.send(request)
            while not self.provider.lines[0].received.endswith(body):
                await deferLater(reactor, 0.01, lambda: None)
            self.far_end().shutdown(socket.SHUT_RDWR)
            await self.assertFailure(request.responded, errors.UpstreamUnreachable)
            self.assertEqual((len(self.provider.lines), self.agent.repeated), (1, 0))
            await self.tearDown()
            self.setUp()

    async def test_reset_after_all_was_read(self) -> None:
        """Nothing is acknowledged then, at least for 40 ms, and nothing is proved by that."""
        connection, request = await self.use(), self.post(SMALL)
        self.provider.answers.clear()
        connection.send(request)
        handle = self.far_end()
        while len(handle.recv(65536, socket.MSG_PEEK)) < len(SMALL):
            pass
        handle.recv(65536)
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        tcp_transport(self.provider.lines[0].transport).abortConnection()
        await self.assertFailure(request.responded, errors.UpstreamUnreachable)
        self.assertEqual((len(self.provider.lines), self.agent.repeated), (1, 0))


class TLSRaceTests(PlainTests):
    """The same over TLS."""

    def begin(self) -> tuple[Agent, Origin]:
        folder = Path(self.mktemp())
        folder.mkdir(parents=True)
        authority = Authority(folder)
        self.port = reactor.listenSSL(0, self.provider, authority.server("localhost", 0), interface="127.0.0.1")
        agent = Agent(reactor, ca_file=authority.ca_file)
        return agent, Origin("https", "localhost", self.port.getHost().port)

    async def test_reset_after_all_was_read(self) -> None:
        connection, request = await self.use(), self.post(SMALL)
        self.provider.answers.clear()
        connection.send(request)
        while not self.provider.lines[0].received.endswith(SMALL):
            await deferLater(reactor, 0, lambda: None)
        tcp_transport(self.provider.lines[0].transport).abortConnection()
        await self.assertFailure(request.responded, errors.UpstreamUnreachable)
        self.assertEqual((len(self.provider.lines), self.agent.repeated), (1, 0))

    async def test_closed_in_good_order_after_all_was_read(self) -> None:
        """With close_notify."""
        connection, request = await self.use(), self.post(SMALL)
        self.provider.answers.clear()
        connection.send(request)
        while not self.provider.lines[0].received.endswith(SMALL):
            await deferLater(reactor, 0, lambda: None)
        self.provider.lines[0].transport.loseConnection()  # type: ignore[union-attr]
        await self.assertFailure(request.responded, errors.UpstreamUnreachable)
        self.assertEqual((len(self.provider.lines), self.agent.repeated), (1, 0))
