"""Requests to an identity provider over real sockets: TLS that is verified, redirects that are not followed, an end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from llmproxy.auth.oidc.issuer_client import IssuerClient, IssuerError, IssuerRefusal, ProviderMetadata
from llmproxy.config.auth_settings import OidcSettings
from tests.unit.wire.authority import Authority

reactor: Any = _reactor


class Pages(Resource):
    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[bytes, bytes]] = []
        self.authorization: str | None = None

    def render(self, request: Request) -> Any:
        self.asked.append((request.method, request.path))
        self.authorization = request.getHeader("authorization")
        self.form = request.content.read()
        if request.path == b"/silent":
            return NOT_DONE_YET
        if request.path == b"/elsewhere":
            request.redirect(b"/object")
            return b""
        if request.path == b"/endless":
            request.write(b"x" * 700_000)
            return NOT_DONE_YET
        if request.path == b"/refusing":
            request.setResponseCode(400)
            return b'{"error": "invalid_grant"}'
        return b'{"a": 1}'


class IssuerClientTests(TestCase):
    def setUp(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir(parents=True)
        self.authority = Authority(folder)
        self.pages = Pages()
        context = self.authority.server("127.0.0.1")
        self.port = reactor.listenSSL(0, Site(self.pages), context, interface="127.0.0.1")
        self.url = f"https://127.0.0.1:{self.port.getHost().port}"

    async def tearDown(self) -> None:
        await self.port.stopListening()

    def client(self, **settings: Any) -> IssuerClient:
        chosen = {"issuer": self.url, "audience": ("x",), "ca_file": self.authority.ca_file, **settings}
        return IssuerClient(OidcSettings.model_validate(chosen), reactor)

    async def test_verified(self) -> None:
        """By the authorities of ca_file; without them nothing is asked."""
        self.assertEqual(await self.client().get(f"{self.url}/object"), {"a": 1})
        with self.assertRaisesRegex(IssuerError, "cannot be reached.*certificate"):
            await self.client(ca_file="").get(f"{self.url}/object")
        self.assertEqual(len(self.pages.asked), 1)

    async def test_what_is_no_answer(self) -> None:
        """A redirect is not followed, what is too long is not read to its end, silence has one."""
        for path, said in (("elsewhere", "302"), ("endless", "too long"), ("silent", "in time")):
            with self.assertRaisesRegex(IssuerError, said):
                await self.client(timeout="500ms" if path == "silent" else "20s").get(f"{self.url}/{path}")
        self.assertNotIn((b"GET", b"/object"), self.pages.asked)

    async def test_a_code_is_redeemed(self) -> None:
        """With the client's secret where RFC 6749 wants it, or the form where the provider wants that."""
        metadata = ProviderMetadata("", token_endpoint=f"{self.url}/token")
        self.assertEqual(await self.client().redeem(metadata, {"code": "c"}, "me", "a b"), {"a": 1})
        self.assertEqual((self.pages.authorization, self.pages.form), ("Basic bWU6YSti", b"code=c"))
        post = metadata._replace(token_auth_methods=("client_secret_post",))
        await self.client().redeem(post, {"code": "c"}, "me", "a b")
        self.assertEqual((self.pages.authorization, self.pages.form), (None, b"code=c&client_id=me&client_secret=a+b"))
        await self.client().redeem(metadata, {"code": "c"}, "me", "")
        self.assertEqual((self.pages.authorization, self.pages.form), (None, b"code=c&client_id=me"))
        with self.assertRaisesRegex(IssuerRefusal, "invalid_grant"):
            await self.client().redeem(metadata._replace(token_endpoint=f"{self.url}/refusing"), {}, "me", "")

    async def test_it_is_given_up(self) -> None:
        """Whoever cancels leaves no connection behind."""
        waiting = Deferred.fromCoroutine(self.client().get(f"{self.url}/silent"))
        while not self.pages.asked:
            turn: Deferred[None] = Deferred()
            reactor.callLater(0.01, turn.callback, None)
            await turn
        waiting.cancel()
        await self.assertFailure(waiting, Exception)
