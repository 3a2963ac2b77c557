"""TLS to a provider: verified or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from OpenSSL import SSL
from OpenSSL.SSL import TLS1_1_VERSION, TLS1_2_VERSION, TLS1_3_VERSION
from twisted.internet import reactor as _reactor
from twisted.trial.unittest import TestCase
from twisted.web.client import readBody

from llmproxy import errors
from llmproxy.wire.client.agent import Agent
from llmproxy.wire.client.request_writer import BytesBody
from tests.unit.wire.authority import Authority
from tests.unit.wire.provider import Line, Provider

reactor: Any = _reactor
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Seen(Line):
    """Remembers what was negotiated."""

    def dataReceived(self, data: bytes) -> None:
        transport: Any = self.transport
        handle = transport.getHandle()
        self.seen = (handle.get_servername(), transport.negotiatedProtocol, handle.get_protocol_version_name())
        self.resumed = bool(SSL._lib.SSL_session_reused(handle._ssl))  # type: ignore[attr-defined]
        super().dataReceived(data)


class TLSTests(TestCase):
    def setUp(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir(parents=True)
        self.authority = Authority(folder)
        self.agents: list[Agent] = []
        self.provider = Provider()
        self.provider.protocol = Seen
        self.provider.answers += [OK, OK]

    def listen(self, name: str, newest: int = 0) -> int:
        context = self.authority.server(name, newest)
        self.port = reactor.listenSSL(0, self.provider, context, interface="127.0.0.1")
        number: int = self.port.getHost().port
        return number

    def agent(self, ca_file: str = "") -> Agent:
        self.agents.append(Agent(reactor, ca_file=ca_file))
        return self.agents[-1]

    async def tearDown(self) -> None:
        for agent in self.agents:
            await agent.close()
        await self.port.stopListening()
        for line in self.provider.lines:
            await line.closed

    async def test_verified(self) -> None:
        """The name is sent, HTTP/1.1 asked for, and the connection used again."""
        url = b"https://localhost:%d/" % self.listen("localhost")
        agent = self.agent(self.authority.ca_file)
        for _ in range(2):
            response = await agent.request(b"POST", url, None, BytesBody(b"{}"))
            self.assertEqual(await readBody(response), b"ok")
        (line,) = self.provider.lines
        self.assertEqual(line.seen[:2], (b"localhost", b"http/1.1"))

    async def ask(self, agent: Agent, url: bytes) -> None:
        """One request over a connection of its own."""
        self.provider.closing = True
        self.provider.answers.append(OK)
        response = await agent.request(b"POST", url, None, BytesBody(b"{}"))
        self.assertEqual(await readBody(response), b"ok")
        await self.provider.lines[-1].closed

    async def test_the_next_connection_resumes_the_session(self) -> None:
        """A new connection to a provider that is known costs a short handshake, in either version of TLS."""
        for newest in (TLS1_2_VERSION, TLS1_3_VERSION):
            with self.subTest(newest=newest):
                url = b"https://localhost:%d/" % self.listen("localhost", newest)
                agent = self.agent(self.authority.ca_file)
                self.provider.lines.clear()
                self.provider.answers.clear()
                for _ in range(4):
                    await self.ask(agent, url)
                self.assertEqual([line.resumed for line in self.provider.lines], [False, True, True, True])
                if newest == TLS1_2_VERSION:
                    await self.port.stopListening()

    async def test_a_provider_that_has_forgotten_the_session(self) -> None:
        """It was started anew: the handshake is a full one, and the request does not notice."""
        port = self.listen("localhost")
        agent = self.agent(self.authority.ca_file)
        url = b"https://localhost:%d/" % port
        self.provider.answers.clear()
        await self.ask(agent, url)
        await self.port.stopListening()
        context = self.authority.server("localhost")
        self.port = reactor.listenSSL(port, self.provider, context, interface="127.0.0.1")
        for _ in range(2):
            await self.ask(agent, url)
        self.assertEqual([line.resumed for line in self.provider.lines], [False, False, True])

    async def test_a_session_is_no_way_around_the_name(self) -> None:
        """A provider that was verified once does not vouch for another one at the same address and port."""
        port = self.listen("localhost")
        agent = self.agent(self.authority.ca_file)
        url = b"https://localhost:%d/" % port
        self.provider.answers.clear()
        await self.ask(agent, url)
        await self.port.stopListening()
        context = self.authority.server("api.example.com")
        self.port = reactor.listenSSL(port, self.provider, context, interface="127.0.0.1")
        self.provider.requests.clear()
        await self.refused(agent, url)

    async def test_handshakes_that_failed_leave_no_session(self) -> None:
        """After a provider that could not be trusted comes one that can: it is greeted as a stranger."""
        port = self.listen("api.example.com")
        agent = self.agent(self.authority.ca_file)
        url = b"https://localhost:%d/" % port
        self.provider.answers.clear()
        await self.refused(agent, url)
        await self.port.stopListening()
        context = self.authority.server("localhost")
        self.port = reactor.listenSSL(port, self.provider, context, interface="127.0.0.1")
        self.provider.lines.clear()
        for _ in range(2):
            await self.ask(agent, url)
        self.assertEqual([line.resumed for line in self.provider.lines], [False, True])

    async def test_tls_1_2_will_do(self) -> None:
        url = b"https://localhost:%d/" % self.listen("localhost", TLS1_2_VERSION)
        self.provider.answers.clear()
        await self.ask(self.agent(self.authority.ca_file), url)
        self.assertEqual(self.provider.lines[0].seen[2], "TLSv1.2")

    async def test_address(self) -> None:
        url = b"https://127.0.0.1:%d/" % self.listen("127.0.0.1")
        response = await self.agent(self.authority.ca_file).request(b"GET", url)
        self.assertEqual(await readBody(response), b"ok")

    async def test_large_bodies(self) -> None:
        body = bytes(range(256)) * 10_000
        self.provider.answers[0] = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        url = b"https://localhost:%d/" % self.listen("localhost")
        response = await self.agent(self.authority.ca_file).request(b"POST", url, None, BytesBody(body))
        self.assertEqual(await readBody(response), body)
        self.assertTrue(self.provider.requests[0].endswith(b"\r\n\r\n" + body))

    async def refused(self, agent: Agent, url: bytes) -> None:
        with self.assertRaises(errors.UpstreamUnreachable) as caught:
            await agent.request(b"POST", url, None, BytesBody(b"{}"))
        self.assertTrue(caught.exception.nothing_sent)
        self.assertIn("TLS", caught.exception.message)
        self.assertEqual(self.provider.requests, [])

    async def test_unknown_authority(self) -> None:
        url = b"https://localhost:%d/" % self.listen("localhost")
        await self.refused(self.agent(), url)

    async def test_wrong_name(self) -> None:
        url = b"https://localhost:%d/" % self.listen("api.example.com")
        await self.refused(self.agent(self.authority.ca_file), url)

    async def test_old_version(self) -> None:
        url = b"https://localhost:%d/" % self.listen("localhost", TLS1_1_VERSION)
        await self.refused(self.agent(self.authority.ca_file), url)

    async def test_not_tls_at_all(self) -> None:
        self.port = reactor.listenTCP(0, self.provider, interface="127.0.0.1")
        self.provider.protocol = Plain
        await self.refused(self.agent(), b"https://127.0.0.1:%d/" % self.port.getHost().port)


class Plain(Line):
    """Speaks HTTP where TLS is expected."""

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")  # type: ignore[union-attr]
