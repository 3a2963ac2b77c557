from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from llmproxy import errors
from llmproxy.caching.lookup import CacheLookup
from llmproxy.caching.rules.directives import Directives
from llmproxy.caching.rules.request import CacheRequest
from llmproxy.http.field_lines import FieldLines
from llmproxy.proxy.context import RequestContext
from tests.unit.proxy.scripted import ROUTES, ProxyCase

NOTHING: Any = None
REQUEST = CacheRequest(NOTHING, (), "k", b"POST", FieldLines.of([]), Directives())


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


class ErrorResponses(ProxyCase):
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


class Background(ProxyCase):
    """A request that the proxy makes by itself, to replace what the cache has."""

    def serve(self, error: Exception | None = None) -> RequestContext:
        """The client's own goes well; then one in the background goes as the test tells."""
        self.ask()
        self.records.clear()
        self.again.clear()
        self.cache.error = error
        context = self.pipeline.contexts[0].background_copy(CacheLookup(REQUEST), self.clock.seconds())
        self.successResultOf(Deferred.fromCoroutine(self.pipeline.serve(context)))
        return context

    def test_served(self) -> None:
        """It is counted, and reported as a request of its own, without a client."""
        self.serve()
        record = self.record()
        self.assertEqual((record.status, record.outcome, record.error), (200, "complete", ""))
        self.assertEqual((record.request_id, record.client, record.cache), ("fresh-refresh", "", "stored"))

    def test_errors(self) -> None:
        """The client's response is not touched by them, nobody else hears of them, and every one is recorded."""
        for error, status, outcome, code in [
            (errors.UpstreamTimeout(), 504, "failed", "upstream_timeout"),
            (errors.RateLimited(), 429, "failed", "rate_limit_exceeded"),
            (CancelledError(), 499, "cancelled", ""),
            (ZeroDivisionError(), 500, "failed", "internal_error"),
        ]:
            self.setUp()
            self.serve(error=error)
            record = self.record()
            self.assertEqual((record.status, record.outcome, record.error), (status, outcome, code))
            self.assertTrue(self.client.received.endswith(b"\r\n\r\nok"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_a_client_that_leaves_meanwhile(self) -> None:
        """Its own request ends all the same, although one in the background has ended before."""
        waiting = self.waits()
        self.ask()
        context = self.pipeline.contexts[0].background_copy(CacheLookup(REQUEST), self.clock.seconds())
        self.successResultOf(Deferred.fromCoroutine(self.pipeline.serve(context)))
        self.leave()
        self.assertTrue(waiting.called)
        self.assertEqual([record.outcome for record in self.records], ["complete", "cancelled"])
