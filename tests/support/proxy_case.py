"""A proxy as a library user has it, between a client and a provider that a test drives, all in memory."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Collection, Mapping
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from llmproxy import TransparentProxy, errors
from llmproxy.config.api_settings import Api
from llmproxy.config.model import Cache, Price, Server, Settings
from llmproxy.interfaces import IEventBus, IInstrumented
from llmproxy.model import Grant, RequestRecord
from llmproxy.wire.buffers import Buffers
from llmproxy.wire.parser import MessageLimits
from llmproxy.wire.server.server_limits import ServerLimits
from llmproxy.wire.server.site import Site
from tests.support.fakes import MemoryAudit
from tests.support.network import Network, Peer, PeerFactory
from tests.support.responses import Response, parse_response
from tests.support.transport import peer_closed, unacknowledged_bytes

FAST_PATH = "LLMPROXY_SERVER_FAST_PATH"  # the daemon's own variable: the suites run both ways by it
TOKEN = "sk-lp-" + "t" * 43
OTHER = "sk-lp-" + "o" * 43
KEY = "sk-provider-0123456789abcdef"
PROVIDER = ("203.0.113.5", 8000)
BASE_URL = "http://203.0.113.5:8000"
CHAT = "/v1/chat/completions"
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
# Gauges that are zero where nobody is served, whatever has happened before.
AT_REST = {
    "buffered_bytes",
    "requests_at_providers",
    "requests_waiting_to_begin",
    "upstream_in_flight",
    "upstream_requests_waiting",
}
CACHE_AT_REST = {"cache_flights", "cache_pending_bytes"}
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


class Tokens:
    """A validator of ten lines.

    @ivar counted: The tokens whose uses it was told of; C{asked}: how often it was asked anything.
    """

    def __init__(self) -> None:
        self.grants: dict[str, Any] = {
            TOKEN: Grant("project-1", token_id="token-1"),
            OTHER: Grant("project-2", token_id="token-2"),
        }
        self.counted: list[str] = []
        self.asked = 0
        self.failing: BaseException | None = None

    async def validate_token(self, token: str) -> Grant | str:
        self.asked += 1
        if self.failing is not None:
            raise self.failing
        if token not in self.grants:
            raise errors.TokenNotFound
        grant: Grant | str = self.grants[token]
        return (await grant) if isinstance(grant, Awaitable) else grant

    async def validate_token_with_tracking(self, token: str) -> Grant | str:
        grant = await self.validate_token(token)
        self.counted.append(token)
        return grant


class Projects:
    """A store of ten lines: what the proxy asks of one."""

    def __init__(self) -> None:
        self.active: Any = True
        self.keys: dict[str, Any] = {"project-1": KEY, "project-2": "sk-another-project"}

    async def get_project_active(self, project_id: str) -> bool:
        if isinstance(self.active, Exception):
            raise self.active
        return bool(self.active)

    async def get_api_key_for_project(self, project_id: str, api: str = "") -> str:
        key = self.keys[project_id]
        return str(await key if isinstance(key, Awaitable) else key)


@implementer(IEventBus)
class Events:
    """Keeps what it is told."""

    dropped = 0

    def __init__(self) -> None:
        self.records: list[RequestRecord] = []

    def publish(self, event: RequestRecord) -> None:
        self.records.append(event)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def request(
    *lines: str,
    method: str = "POST",
    path: str = CHAT,
    body: bytes | None = b"{}",
    token: str | None = TOKEN,
) -> bytes:
    """A request's bytes; C{body=None}: neither a body nor a field that tells of one."""
    head = [f"{method} {path} HTTP/1.1", "Host: proxy.test"]
    if token is not None:
        head.append(f"Authorization: Bearer {token}")
    head += lines
    if body is not None:
        head.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*head, "", ""]).encode("latin-1") + (body or b"")


class ProxyTestCase(SynchronousTestCase):
    """One proxy on one network. At the end nothing may be left: no timer, no request under way, no lost record.

    @ivar api: Settings of its one API that a class of tests wants otherwise; C{server}, C{cache}, C{prices} likewise.
    @ivar site_errors: What the site refused by itself: status and code.
    """

    default = "openai"
    api: dict[str, Any] = {}  # noqa: RUF012
    server: dict[str, Any] = {}  # noqa: RUF012
    cache: dict[str, Any] = {}  # noqa: RUF012
    prices: list[dict[str, Any]] = []  # noqa: RUF012

    def setUp(self) -> None:
        self.network = Network()
        self.provider = PeerFactory(self.network)
        self.network.servers[PROVIDER] = self.provider
        self.tokens, self.projects, self.audit = Tokens(), Projects(), MemoryAudit()
        self.clients: list[Peer] = []
        self._start()

    def restart(self, apis: dict[str, Any] | None = None, **settings: Any) -> None:
        """End the present proxy and make another, with these settings of its API."""
        self._finish()
        self._start(apis, **settings)

    def _start(self, apis: dict[str, Any] | None = None, **settings: Any) -> None:
        settings = {
            "provider": "openai",
            **({} if "upstreams" in self.api else {"base_url": BASE_URL}),
            "allowed_endpoints": [CHAT, "/v1/models", "/v1/models/*"],
            **self.api,
            **settings,
        }
        server = Server(**{"fast_path": os.environ.get(FAST_PATH) != "false", **self.server})
        self.events = Events()
        self.site_errors: list[tuple[int, str]] = []
        self.proxy = TransparentProxy(
            Settings(
                default_api=self.default,
                apis={"openai": Api(**settings), **(apis or {})},
                server=server,
                cache=Cache(**self.cache),
                prices=tuple(Price(**price) for price in self.prices),
            ),
            self.validator(),
            self.projects,  # type: ignore[arg-type]
            events=self.events,
            audit=self.audit,
            reactor=self.network,
            now=lambda: 1_000_000.0 + self.network.seconds(),
        )
        self.buffers = Buffers(2**30)  # which a daemon has, and a library has not
        self.proxy._parts.accounting.buffers = self.buffers
        self.site = Site(
            self.proxy,
            reactor=self.network,
            buffers=self.buffers,
            limits=ServerLimits(
                messages=MessageLimits(head=server.max_head_bytes, body=server.max_request_bytes),
                send_timeout=server.send_timeout,
                min_send_rate=server.min_send_rate,
            ),
            peer_closed=peer_closed,
            unacknowledged_bytes=unacknowledged_bytes,
            on_refused=lambda status, code, remote, request_id: self.site_errors.append((status, code)),
        )

    def validator(self) -> Any:
        return self.tokens

    def tearDown(self) -> None:
        self._finish()

    def _finish(self) -> None:
        """Everybody leaves, and nothing is left behind."""
        for client in self.clients:
            if not client.end:
                client.resume()
                client.close()
        closed = Deferred.fromCoroutine(self.proxy.close())
        self.network.flow()
        self.successResultOf(closed)
        self.network.advance(0)  # a turn ends
        self.assertEqual([str(call) for call in self.network.getDelayedCalls()], [])
        at_rest = AT_REST if self.proxy._parts.caching is None else AT_REST | CACHE_AT_REST
        self.assertEqual(self._shown(at_rest), dict.fromkeys(at_rest, 0))
        self.assertEqual(self.proxy.metrics().in_flight, 0)
        self.assertEqual(self.proxy.metrics().requests, len(self.events.records))

    def _shown(self, names: Collection[str]) -> dict[str, float]:
        """What gauges of these names show, for all of their labels together."""
        shown = {}
        for part in (*self.proxy._parts.members, self.buffers):
            for instrument in IInstrumented(part).instruments() if IInstrumented.providedBy(part) else ():
                if instrument.name in names:
                    read = instrument.read()
                    shown[instrument.name] = sum(read.values()) if isinstance(read, Mapping) else read
        return shown

    # Client and provider

    def client(self, address: str = "192.0.2.1") -> Peer:
        """Somebody connects."""
        peer = Peer(self.network)
        self.clients.append(peer)
        self.network.join(self.site.buildProtocol(IPv4Address("TCP", address, 4711)), peer, address)
        self.network.flow()
        return peer

    def ask(self, *lines: str, **parts: Any) -> Peer:
        """A new client sends a request."""
        client = self.client()
        client.send(request(*lines, **parts))
        return client

    def exchange(self, *lines: str, answer: bytes = OK, **parts: Any) -> Response:
        """A request, the provider's answer to it, and what comes of it."""
        client = self.ask(*lines, **parts)
        self.provider.last.send(answer)
        return parse_response(client.take())

    def forwarded_request(self) -> tuple[str, list[str], bytes]:
        """What the provider was asked last: request line, fields, body as it came."""
        head, _, body = self.provider.last.take().partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        return first, lines, body

    def delayed_grant(self) -> tuple[Any, Deferred[Any]]:
        """A grant that comes when the Deferred is fired with what the first of the two is."""
        waiting: Deferred[Any] = Deferred()
        grant, self.tokens.grants[TOKEN] = self.tokens.grants[TOKEN], waiting
        return grant, waiting

    # What is claimed

    def record(self) -> RequestRecord:
        """The only record there is."""
        (record,) = self.events.records
        return record

    def assert_recorded(self, outcome: str, status: int, error: str = "") -> None:
        record = self.record()
        self.assertEqual((record.outcome, record.status, record.error), (outcome, status, error))
        self.assertEqual(self.proxy.metrics().in_flight, 0)

    def assert_rejected(self, got: Response, status: int, code: str) -> None:
        """A refusal in all its parts, and nothing of it at the provider."""
        self.assertEqual((got.status, got.json["error"]["code"]), (status, code))
        self.assertTrue(got.complete)
        self.assertEqual(got["X-LLMProxy-Error"], code)
        self.assertEqual(got["X-Request-ID"], got.json["request_id"])
        self.assertEqual(got["Content-Type"], "application/json")
        self.assert_recorded("refused" if status < 500 else "failed", status, code)
