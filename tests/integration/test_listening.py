"""The server on real sockets: TCP, TLS and UNIX."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from twisted.internet import endpoints, reactor, ssl
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from llmproxy.wire.server.site import Site
from tests.unit.wire.authority import Authority
from tests.unit.wire.serving import GET, Echo, Waiting, post

real: Any = reactor


@implementer(IHalfCloseableProtocol)
class Reader(Protocol):
    def __init__(self) -> None:
        self.received = b""
        self.ended: Deferred[bytes] = Deferred()
        self.lost: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def readConnectionLost(self) -> None:
        self.ended.callback(self.received)
        self.transport.loseConnection()  # type: ignore[union-attr]

    def writeConnectionLost(self) -> None:
        pass

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(None)
        if not self.ended.called:
            self.ended.callback(self.received)


class Listening:
    """The same, whatever the socket."""

    waiting: Waiting

    async def begin(self) -> None:
        self.waiting = Waiting()
        self.echo = Echo()
        self.folder = TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)  # type: ignore[attr-defined]

    async def connect(self, resource: Any, **settings: Any) -> Reader:
        self.site = Site(resource, reactor=real, **settings)
        server, client = self.endpoints()  # type: ignore[attr-defined]
        port = await server.listen(self.site)
        self.addCleanup(port.stopListening)  # type: ignore[attr-defined]
        where = client(port.getHost())
        reader = await where.connect(Factory.forProtocol(Reader))
        self.addCleanup(lambda: reader.lost)  # type: ignore[attr-defined]
        self.addCleanup(reader.transport.loseConnection)  # type: ignore[attr-defined]
        return reader

    async def soon(self, fact: Any) -> None:
        for _ in range(200):
            if fact():
                return
            await deferLater(real, 0.01)
        raise AssertionError("It did not happen within two seconds.")

    async def test_requests_and_answers(self) -> None:
        await self.begin()
        reader = await self.connect(self.echo)
        reader.transport.write(GET % b"1" + post(b"hello" * 100_000, b"2", b"Connection: close"))
        received = await reader.ended
        assert b"got /1" in received
        assert received.endswith(b"got " + b"hello" * 100_000)
        await self.soon(lambda: self.site.connections == 0)

    async def test_a_refusal_arrives_though_the_client_goes_on_sending(self) -> None:
        await self.begin()
        reader = await self.connect(self.echo)
        reader.transport.write(b"x\r\n\r\n" + b"a" * 3_000_000)
        await self.soon(lambda: reader.received.startswith(b"HTTP/1.1 400 Bad Request\r\n"))
        reader.transport.loseConnection()
        await reader.lost
        await self.soon(lambda: self.site.connections == 0)

    async def test_a_client_that_leaves_is_noticed(self) -> None:
        await self.begin()
        reader = await self.connect(self.waiting)
        reader.transport.write(GET % b"x")
        await self.soon(lambda: self.waiting.requests)
        reader.transport.loseConnection()
        await reader.lost
        await self.soon(lambda: self.waiting.requests[0].gone)

    async def test_a_client_that_leaves_in_its_upload_is_noticed_though_nobody_reads(self) -> None:
        await self.begin()
        reader = await self.connect(self.waiting)
        reader.transport.write(post(b"a" * 150_000, b"x", length=10**9))
        await self.soon(lambda: self.waiting.requests and self.waiting.requests[0].upload.full)
        reader.transport.abortConnection()
        await reader.lost
        await self.soon(lambda: self.waiting.requests[0].gone)

    async def test_a_client_that_does_not_read_holds_the_producer(self) -> None:
        await self.begin()
        reader = await self.connect(self.waiting)
        reader.transport.write(GET % b"x")
        await self.soon(lambda: self.waiting.requests)
        reader.transport.pauseProducing()
        request = self.waiting.requests[0]
        told: list[str] = []

        class Producer:
            def pauseProducing(self) -> None:
                told.append("pause")

            def resumeProducing(self) -> None:
                told.append("resume")

            def stopProducing(self) -> None:
                told.append("stop")

        request.begin(200, b"OK", [], None)
        request.registerProducer(Producer(), True)
        for _ in range(2000):
            if told[-1:] != ["pause"]:
                request.write(b"a" * 65536)
            await deferLater(real, 0)
        assert told[-1] == "pause"
        held = len(told)
        reader.transport.resumeProducing()
        await self.soon(lambda: told[held:] == ["resume"])
        request.unregisterProducer()
        request.finish()
        await self.soon(lambda: reader.received.endswith(b"0\r\n\r\n"))

    async def test_draining(self) -> None:
        await self.begin()
        reader = await self.connect(self.waiting)
        reader.transport.write(GET % b"x")
        await self.soon(lambda: self.waiting.requests)
        drained = self.site.drain()
        assert not drained.called
        self.waiting.requests[0].begin(200, b"OK", [], 2)
        self.waiting.requests[0].write(b"ok")
        self.waiting.requests[0].finish()
        assert b"Connection: close" in await reader.ended
        await drained


class HalfClosing:
    """Where the other side can say that it will send no more."""

    async def test_a_client_that_will_send_no_more_gets_its_answer(self) -> None:
        await self.begin()  # type: ignore[attr-defined]
        reader = await self.connect(self.waiting)  # type: ignore[attr-defined]
        reader.transport.write(GET % b"x")
        reader.transport.loseWriteConnection()
        await self.soon(lambda: self.waiting.requests)  # type: ignore[attr-defined]
        await deferLater(real, 0.3)
        request = self.waiting.requests[0]  # type: ignore[attr-defined]
        assert not request.gone
        request.write(b"hello")
        request.finish()
        assert b"hello" in await reader.ended


class TCPTests(Listening, HalfClosing, TestCase):
    timeout = 20

    def endpoints(self) -> Any:
        server = endpoints.TCP4ServerEndpoint(real, 0, interface="127.0.0.1")
        return server, lambda host: endpoints.TCP4ClientEndpoint(real, "127.0.0.1", host.port)


class UNIXTests(Listening, HalfClosing, TestCase):
    timeout = 20

    def endpoints(self) -> Any:
        path = str(Path(self.folder.name, "socket"))
        return endpoints.UNIXServerEndpoint(real, path), lambda host: endpoints.UNIXClientEndpoint(real, path)


class TLSTests(Listening, TestCase):
    timeout = 20

    def endpoints(self) -> Any:
        context = Authority(Path(self.folder.name)).server("127.0.0.1")
        server = endpoints.SSL4ServerEndpoint(real, 0, context, interface="127.0.0.1")
        anybody = ssl.CertificateOptions(verify=False)
        return server, lambda host: endpoints.SSL4ClientEndpoint(real, "127.0.0.1", host.port, anybody)
