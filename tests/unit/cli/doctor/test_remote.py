"""What C{llmproxy doctor} asks providers, over real sockets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from OpenSSL import SSL
from twisted.internet import reactor
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from llmproxy.cli.doctor.findings import Finding
from llmproxy.cli.doctor.local import StoredKey
from llmproxy.cli.doctor.remote import remote_findings
from llmproxy.config.load import parse
from tests.unit.wire.authority import Authority


class ModelList(Resource):
    isLeaf = True

    def render_GET(self, request: Request) -> bytes:
        if request.path == b"/v1/models" and request.getHeader("authorization") != "Bearer sk-good":
            request.setResponseCode(401)
        request.setHeader(b"date", b"Wed, 18 Nov 2026 09:06:40 GMT")
        return b"{}"


class Refusing(Resource):
    isLeaf = True

    def render(self, request: Request) -> bytes:
        request.setResponseCode(407)
        return b""


class NoList(Resource):
    isLeaf = True

    def render(self, request: Request) -> bytes:
        request.setResponseCode(404)
        return b""


class Greeting(Protocol):
    """Speaks first, and no TLS."""

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.write(b"220 mail.example.com ESMTP\r\n")


class RemoteTests(TestCase):
    def setUp(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir(parents=True)
        self.authority = Authority(folder)
        listening: Any = reactor
        site = Site(ModelList())
        context = self.authority.server("127.0.0.1", SSL.TLS1_3_VERSION)
        port = listening.listenSSL(0, site, context, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.url = f"https://127.0.0.1:{port.getHost().port}"

    async def look(self, url: str, ca_file: str = "", key: str = "sk-good") -> dict[str, Finding]:
        text = f'apis: {{openai: {{base_url: "{url}", ca_file: "{ca_file}", allowed_endpoints: [/v1/models]}}}}'
        keys = {"openai": [StoredKey("proj-1", key)]}
        found = await remote_findings(parse(text, "a.yaml", {}), keys, reactor, lambda: 1_794_992_800.0, {})
        return {each.subject: each for each in found}

    async def test_good(self) -> None:
        """Certificate, key and clock are right."""
        found = await self.look(self.url, self.authority.ca_file)
        self.assertEqual([each.state for each in found.values()], ["ok", "ok", "ok"], found)
        self.assertIn("its certificate verified", found["apis.openai"].detail)

    async def test_untrusted(self) -> None:
        """No authority that is trusted has signed it."""
        found = (await self.look(self.url))["apis.openai"]
        self.assertEqual(found.state, "failed")
        self.assertIn("ca_file", found.advice)

    async def test_a_proxy(self) -> None:
        """Where it makes no tunnel, that is said, with what to look at."""
        listening: Any = reactor
        proxy = listening.listenTCP(0, Site(Refusing()), interface="127.0.0.1")
        self.addCleanup(proxy.stopListening)
        text = (
            f'apis: {{openai: {{base_url: "{self.url}", allowed_endpoints: [/v1/models], '
            f'proxy_url: "http://127.0.0.1:{proxy.getHost().port}", proxy_credentials: env:PROXY}}}}'
        )
        settings = parse(text, "a.yaml", {})
        for environ, detail in (({"PROXY": "a:b"}, "(407)"), ({}, "does not hold user:password")):
            (found, _) = await remote_findings(settings, {}, reactor, lambda: 0.0, environ)
            self.assertEqual(found.state, "failed")
            self.assertIn(detail, found.detail)
        self.assertNotIn("a:b", repr(found))

    async def test_refused_key(self) -> None:
        found = (await self.look(self.url, self.authority.ca_file, key="sk-bad"))["apis.openai key"]
        self.assertEqual(found.state, "failed")
        self.assertIn("project update proj-1", found.advice)
        self.assertNotIn("sk-bad", repr(found))

    async def test_nobody(self) -> None:
        """Nothing listens; then no clock can be compared either."""
        found = await self.look("http://127.0.0.1:1")
        self.assertEqual(found["apis.openai"].state, "failed")
        self.assertIn("Connection refused", found["apis.openai"].detail)
        self.assertEqual(found["clock"].state, "warning")

    async def test_its_advice_is_exact(self) -> None:
        """What is said fits what was found: nobody is sent to the firewall where the key is wrong."""
        found = (await self.look(self.url, self.authority.ca_file, key="sk-b\xe4d"))["apis.openai key"]
        self.assertIn("characters that no key can have", found.detail)
        self.assertEqual(found.advice, "Run: llmproxy project update proj-1 --api-key openai=prompt")

    async def test_tls_where_there_is_none(self) -> None:
        """Is no question of certificates."""
        listening: Any = reactor
        greeting = listening.listenTCP(0, Factory.forProtocol(Greeting), interface="127.0.0.1")
        self.addCleanup(greeting.stopListening)
        found = (await self.look(f"https://127.0.0.1:{greeting.getHost().port}"))["apis.openai"]
        self.assertEqual(found.state, "failed")
        self.assertIn("Is TLS spoken there?", found.advice)

    async def test_a_list_that_is_not_there(self) -> None:
        listening: Any = reactor
        port = listening.listenTCP(0, Site(NoList()), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        found = (await self.look(f"http://127.0.0.1:{port.getHost().port}/v1"))["apis.openai key"]
        self.assertEqual(found.state, "warning")
        self.assertIn("/v1/v1/models responds with 404", found.detail)
        self.assertIn("a path too many in base_url", found.advice)
