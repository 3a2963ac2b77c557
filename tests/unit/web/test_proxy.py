from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from llmproxy import errors
from llmproxy.config.model import Api, Server, Settings
from llmproxy.config.routes import Routes
from llmproxy.model import Grant, RequestRecord
from llmproxy.observability.metrics import Metrics
from llmproxy.proxy.accounting import Accounting
from llmproxy.proxy.context import RequestContext
from llmproxy.proxy.pipeline import Pipeline
from llmproxy.web.proxy import ProxyResource
from llmproxy.wire.relay import Relay
from llmproxy.wire.server.site import Site
from tests.support.reading import everything
from tests.support.transport import Link, Peer, has_left

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

    def __init__(self, accounting: Accounting, clock: Clock) -> None:
        unused: Any = None
        super().__init__(
            routes=ROUTES,
            authenticator=unused,
            policy=unused,
            cache=None,
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


class ProxyCase(SynchronousTestCase):
    def setUp(self) -> None:
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
            observers=[self.records.append, self.again.append],
            clock=self.clock,
        )
        self.pipeline = ScriptedPipeline(accounting, self.clock)
        self.proxy = ProxyResource(
            self.pipeline,
            clock=self.clock,
            now=lambda: 1_000.0 + self.clock.seconds(),
            fresh_id=lambda: "fresh",
        )
        self.site = Site(self.proxy, reactor=self.clock, peer_left=has_left)

    def ask(self, path: str = "/x", *lines: str, body: bytes = b"") -> Peer:
        self.client = Peer()
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


class Ends(ProxyCase):
    def test_at_once(self) -> None:
        self.assertTrue(self.ask().received.endswith(b"\r\n\r\nok"))
        record = self.record()
        self.assertEqual((record.status, record.outcome, record.error), (200, "complete", ""))
        self.assertEqual((record.started_at, record.duration), (1_100.0, 0.0))
        self.assertEqual((record.method, record.path, record.client), ("POST", "/x", "192.0.2.1"))

    def test_later(self) -> None:
        """Until then it is under way."""
        waiting = self.waits()
        self.ask()
        self.assertEqual((self.metrics.in_flight, self.records), (1, []))
        self.clock.advance(2.5)
        waiting.callback(None)
        self.assertEqual(self.record().duration, 2.5)

    def test_refused(self) -> None:
        self.raises(errors.ApiNotAllowed())
        self.assertIn(b"HTTP/1.1 403 Forbidden\r\n", self.ask().received)
        record = self.record()
        self.assertEqual((record.status, record.outcome, record.error), (403, "refused", "api_not_allowed"))

    def test_failed(self) -> None:
        self.raises(errors.UpstreamTimeout())
        self.ask()
        record = self.record()
        self.assertEqual((record.status, record.outcome, record.error), (504, "failed", "upstream_timeout"))

    def test_a_fault_of_ours(self) -> None:
        """Is 500, told in the log and not to the client."""
        self.raises(ZeroDivisionError("secret"))
        received = self.ask().received
        self.assertIn(b"HTTP/1.1 500 ", received)
        self.assertNotIn(b"secret", received)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        record = self.record()
        self.assertEqual((record.status, record.outcome, record.error), (500, "failed", "internal_error"))

    def test_a_fault_in_the_middle_of_an_answer(self) -> None:
        """Cuts it; the record keeps the status that was sent."""

        async def way(context: RequestContext) -> None:
            context.status = 200
            context.request.begin(200, b"OK", [], 10)
            raise ZeroDivisionError

        self.pipeline.way = way
        client = self.ask()
        self.link.pump()
        self.flushLoggedErrors(ZeroDivisionError)
        self.assertTrue(client.lost)
        self.assertFalse(b"500" in client.received)
        record = self.record()
        self.assertEqual((record.status, record.outcome, record.error), (200, "failed", "internal_error"))

    def test_a_client_that_leaves(self) -> None:
        """Ends whatever was waited for, at once."""
        waiting = self.waits()
        self.ask()
        self.leave()
        self.assertTrue(waiting.called)
        record = self.record()
        self.assertEqual((record.status, record.outcome, record.error), (499, "cancelled", ""))

    def test_a_client_that_leaves_as_something_fails(self) -> None:
        """Whatever the way out is called, it was the client that left."""
        for error in (errors.ClientGone(), errors.UpstreamTimeout(), ValueError()):
            self.setUp()

            def canceller(d: Deferred[Any], error: Exception = error) -> None:
                d.errback(error)

            waiting: Deferred[Any] = Deferred(canceller)

            async def way(context: RequestContext, waiting: Deferred[Any] = waiting) -> None:
                await waiting

            self.pipeline.way = way
            self.ask()
            self.leave()
            self.assertEqual((self.record().status, self.record().outcome), (499, "cancelled"))

    def test_how_a_relay_ended(self) -> None:
        for end, outcome, error in [
            ("complete", "complete", ""),
            ("cancelled", "cancelled", ""),
            ("truncated", "truncated", "upstream_truncated"),
            ("silent", "truncated", "upstream_timeout"),
            ("late", "truncated", "upstream_timeout"),
            ("stalled", "cancelled", "client_stalled"),
        ]:
            self.setUp()

            async def way(context: RequestContext, end: str = end) -> None:
                await self.pipeline.answer(context)
                context.relay = Relay(context.request, self.clock)
                context.relay.count = 7
                context.outcome = end

            self.pipeline.way = way
            self.ask()
            record = self.record()
            self.assertEqual((record.outcome, record.error, record.bytes_out), (outcome, error, 7))

    def test_a_process_that_ends(self) -> None:
        """What it cuts is truncated, not left by its client; what a client has left before is left."""
        for ends, outcome, error in [(True, "truncated", "shutdown"), (False, "cancelled", "")]:
            self.setUp()
            self.waits()
            self.ask()
            if ends:
                self.pipeline.shut_down()
            self.leave()
            self.pipeline.shut_down()
            record = self.record()
            self.assertEqual((record.outcome, record.error), (outcome, error))


class Told(ProxyCase):
    def test_the_request_id(self) -> None:
        for given, kept in [("mine", "mine"), ("not mine", "fresh")]:
            self.setUp()
            self.assertIn(f"X-Request-ID: {kept}\r\n".encode(), self.ask("/x", f"X-Request-ID: {given}").received)
            self.assertEqual(self.record().request_id, kept)

    def test_the_shape_of_an_error(self) -> None:
        """Is the API's, even where no route was found."""
        self.raises(errors.EndpointNotAllowed())
        self.assertIn(b'"description":', self.ask("/plain/none").received)
        self.assertIn(b'"type":"error"', self.ask("/none").received)

    def test_origins_on_a_refusal(self) -> None:
        """So that a page that may call sees why it was refused."""

        async def way(context: RequestContext) -> None:
            context.route = ROUTES.match(b"POST", b"/pages/x")
            raise errors.TokenExpired

        self.pipeline.way = way
        for origin, seen in [("https://a.example", True), ("https://b.example", False)]:
            received = self.ask("/pages/x", f"Origin: {origin}").received
            self.assertEqual(f"Access-Control-Allow-Origin: {origin}\r\n".encode() in received, seen)


class Records(ProxyCase):
    def test_what_is_known(self) -> None:
        async def way(context: RequestContext) -> None:
            context.route = ROUTES.match(b"POST", b"/plain/x")
            context.grant = Grant("p", "t")
            context.observe_small_body(b'{"model": "gpt-4o"}', everything)
            self.clock.advance(0.25)
            context.upstream_started = self.clock.seconds()
            self.clock.advance(0.5)
            context.first_byte_at = self.clock.seconds()
            await self.pipeline.answer(context)

        self.pipeline.way = way
        self.ask("/plain/x?key=secret", "User-Agent: sdk/1", "X-Stainless-Retry-Count: 2", body=b"12345")
        record = self.record()
        self.assertEqual((record.api, record.endpoint, record.project_id, record.token_id), ("plain", "/x", "p", "t"))
        self.assertEqual((record.model, record.user_agent, record.sdk_retry), ("gpt-4o", "sdk/1", 2))
        self.assertEqual((record.first_byte, record.upstream_time, record.bytes_in), (0.75, 0.5, 5))
        self.assertEqual((record.path, record.cache), ("/plain/x", "disabled"))

    def test_what_a_client_may_make_up(self) -> None:
        """Is kept short, and is no reason to fail."""
        self.ask("/x", "User-Agent: " + "x" * 1000, "X-Stainless-Retry-Count: 12345")
        record = self.record()
        self.assertEqual((len(record.user_agent), record.sdk_retry), (256, 0))

    def test_a_model_in_the_path(self) -> None:
        self.ask("/v1beta/models/gemini-pro:generateContent")
        self.assertEqual(self.record().model, "gemini-pro")
