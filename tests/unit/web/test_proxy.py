from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from llmproxy import errors
from llmproxy.proxy.context import RequestContext
from tests.unit.proxy.scripted import ProxyCase


class Render(ProxyCase):
    def test_the_request_id(self) -> None:
        for given, kept in [("mine", "mine"), ("not mine", "fresh")]:
            self.setUp()
            self.assertIn(f"X-Request-ID: {kept}\r\n".encode(), self.ask("/x", f"X-Request-ID: {given}").received)
            self.assertEqual(self.record().request_id, kept)

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
