from __future__ import annotations

from llmproxy import errors
from llmproxy.model import Grant
from llmproxy.proxy.context import RequestContext
from tests.support.reading import everything
from tests.unit.proxy.scripted import ROUTES, ProxyCase


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

    def test_what_it_waited_for(self) -> None:
        """To be begun and for its turn at the limits, where it was refused in the end; all else is no waiting."""

        async def way(context: RequestContext) -> None:
            for step, seconds in (("scheduler", 1.0), ("auth", 0.25), ("body", 0.5)):
                self.clock.advance(seconds)
                context.mark(step, self.clock.seconds())
            context.under_way = "turn"
            self.clock.advance(2.0)
            raise errors.QuotaExceeded

        self.pipeline.way = way
        self.ask("/plain/x")
        record = self.record()
        self.assertEqual((record.auth_time, record.queue_time), (0.75, 3.0))
        self.assertEqual(record.steps, "scheduler:1.0 auth:1.25 body:1.75 turn:3.75")

    def test_what_a_client_may_make_up(self) -> None:
        """Is kept short, and is no reason to fail."""
        self.ask("/x", "User-Agent: " + "x" * 1000, "X-Stainless-Retry-Count: 12345")
        record = self.record()
        self.assertEqual((len(record.user_agent), record.sdk_retry), (256, 0))

    def test_a_model_in_the_path(self) -> None:
        self.ask("/v1beta/models/gemini-pro:generateContent")
        self.assertEqual(self.record().model, "gemini-pro")
