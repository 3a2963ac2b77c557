"""A pipeline whose way is the test's, behind a site."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.caching.lookup import CacheLookup, CacheResult
from llmproxy.config.api_settings import Api
from llmproxy.config.model import Server, Settings
from llmproxy.config.routes import Routes
from llmproxy.model import RequestRecord
from llmproxy.observability.metrics import Metrics
from llmproxy.proxy.accounting import Accounting
from llmproxy.proxy.context import RequestContext
from llmproxy.proxy.pipeline import Pipeline
from llmproxy.proxy.reporting import one_by_one
from llmproxy.proxy.request_scheduler import RequestScheduler
from llmproxy.web.proxy import ProxyResource
from llmproxy.wire.server.site import Site
from tests.support.transport import Link, RecordingProtocol, peer_closed

WHERE: dict[str, Any] = {"base_url": "https://h", "allowed_endpoints": ("/x",)}
ROUTES = Routes(
    Settings(
        default_api="main",
        apis={
            "main": Api(**WHERE),
            "plain": Api(error_format="plain", **WHERE),
            "pages": Api(allowed_origins=("https://a.example",), **WHERE),
        },
    )
)


class ScriptedPipeline(Pipeline):
    """Goes the way that the test tells, and ends as any."""

    def __init__(self, accounting: Accounting, clock: Clock, cache: Any = None) -> None:
        unused: Any = None
        super().__init__(
            routes=ROUTES,
            authenticator=unused,
            policy=unused,
            cache=cache,
            accounting=accounting,
            provider_keys=unused,
            upstreams=unused,
            server=Server(),
            clock=clock,
        )
        self.way: Callable[[RequestContext], Awaitable[object]] = self.answer
        self.contexts: list[RequestContext] = []

    async def handle(self, context: RequestContext) -> None:
        self.contexts.append(context)
        await self.way(context)

    async def answer(self, context: RequestContext) -> None:
        context.request.begin(200, b"OK", [b"X-Request-ID: " + context.request_id.encode()], 2)
        context.request.write(b"ok")
        context.request.finish()
        context.status, context.outcome = 200, "complete"


class ScriptedCache:
    """Collapses a call into a response without a body, or fails as the test tells."""

    error: Exception | None = None
    code = 200

    async def collapse(self, lookup: CacheLookup, fetch: Any) -> Any:
        lookup.report("stored")
        if self.error is not None:
            raise self.error
        return CacheResult(self)  # type: ignore[arg-type]


class ProxyCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.cache = ScriptedCache()
        self.clock = Clock()
        self.clock.advance(100)
        self.metrics = Metrics()
        self.records: list[RequestRecord] = []
        self.again: list[RequestRecord] = []
        unused: Any = None
        accounting = Accounting(
            limiter=unused,
            in_flight=unused,
            meters=unused,
            operations=unused,
            metrics=self.metrics,
            observers=[one_by_one(self.records.append), one_by_one(self.again.append)],
            clock=self.clock,
        )
        self.accounting = accounting
        self.pipeline = ScriptedPipeline(accounting, self.clock, self.cache)
        self.proxy = ProxyResource(
            RequestScheduler(self.pipeline, accounting, self.clock),
            clock=self.clock,
            now=lambda: 1_000.0 + self.clock.seconds(),
            fresh_id=lambda: "fresh",
        )
        self.site = Site(self.proxy, reactor=self.clock, peer_closed=peer_closed)

    def ask(self, path: str = "/x", *lines: str, body: bytes = b"") -> RecordingProtocol:
        self.client = RecordingProtocol()
        self.link = Link(self.site.buildProtocol(IPv4Address("TCP", "192.0.2.1", 1)), self.client)
        head = [f"POST {path} HTTP/1.1", "Host: h", f"Content-Length: {len(body)}", *lines, "", ""]
        self.link.far.write("\r\n".join(head).encode() + body)
        self.link.pump()
        return self.client

    def leave(self) -> None:
        self.link.far.abortConnection()
        self.link.pump()

    def record(self) -> RequestRecord:
        """The only one, of which everybody was told."""
        self.assertEqual((len(self.records), self.again), (1, self.records))
        self.assertEqual(self.metrics.in_flight, 0)
        return self.records[0]

    def raises(self, error: BaseException) -> None:
        async def way(context: RequestContext) -> None:
            raise error

        self.pipeline.way = way

    def waits(self) -> Deferred[Any]:
        waiting: Deferred[Any] = Deferred()

        async def way(context: RequestContext) -> None:
            await waiting
            await self.pipeline.answer(context)

        self.pipeline.way = way
        return waiting
