"""What is over is gone at once: cycles would keep whole bodies until the collector's rare long runs."""

from __future__ import annotations

import gc
from itertools import product
from typing import Any

from llmproxy.caching.broadcast import Broadcast, Subscriber
from llmproxy.caching.collapsing import CollapsedRequest
from llmproxy.caching.fill import CacheFill
from llmproxy.caching.lookup import CacheLookup
from llmproxy.limits.limiter import LimitReservation
from llmproxy.metering.meter import Meter
from llmproxy.proxy.context import RequestContext
from llmproxy.proxy.fast_path.direct_request import DirectRequest
from llmproxy.proxy.fast_path.direct_streams import DirectStream
from llmproxy.proxy.reading import BodyReading
from llmproxy.upstream.delivery import Delivery
from llmproxy.wire.client.response import Response
from llmproxy.wire.relay import Relay
from llmproxy.wire.server.request import Request
from llmproxy.wire.server.request_body import RequestBody
from tests.journey.test_fast_path import BODIES, FIELDS, WaysCase
from tests.support.proxy_case import ProxyTestCase

OF_ONE_REQUEST = (
    RequestContext, Request, RequestBody, Response, Relay, Delivery, BodyReading, Meter, CacheLookup, LimitReservation,
    DirectRequest, DirectStream, CollapsedRequest, CacheFill, Broadcast, Subscriber,
)  # fmt: skip
ANSWERED = (
    "whole", "stream", "in pieces", "chunked in pieces", "refused", "unavailable", "gone", "cut", "stream cut",
    "to keep", "soon stale", "stream to keep", "key in head", "late",
)  # fmt: skip
LONG = b'{"model":"gpt-4o","messages":["%b"]}' % (b"word " * 200_000)


def alive() -> list[object]:
    return [each for each in gc.get_objects() if isinstance(each, OF_ONE_REQUEST)]


class Left(WaysCase):
    def left(self, fast: bool, grant: str, step: Any) -> list[str]:
        """What is left of such requests, once they are over, and their client and the proxy go on."""
        gc.collect()
        before = {id(each) for each in alive()}
        gc.disable()
        try:
            self.play_on(fast, grant, [step] * 4)
            return sorted({type(each).__name__ for each in alive() if id(each) not in before})
        finally:
            gc.enable()
            ProxyTestCase.tearDown(self)

    def test_nothing_is_left(self) -> None:
        """Whatever they were, whoever ended them, and whichever way they went."""
        short = (BODIES[0], "free"), (BODIES[5], "roomy")
        cases = [(*each, answer) for each in short for answer in ANSWERED]
        cases += [(LONG, "models", answer) for answer in ("whole", "stream", "gone")]
        for fast, (body, grant, answer), fields in product((False, True), cases, (FIELDS[1], FIELDS[5])):
            left = self.left(fast, grant, (body, fields, True, answer, "many reads"))
            self.assertEqual(left, [], (fast, grant, answer, fields))

    def test_nothing_is_left_of_those_that_leave(self) -> None:
        manners = ("leaves", "leaves within", "leaves early", "reads nothing for a while")
        for fast, answer, manner in product((False, True), ("whole", "stream", "in pieces", "to keep"), manners):
            left = self.left(fast, "roomy", (BODIES[0], FIELDS[5], True, answer, manner))
            self.assertEqual(left, [], (fast, answer, manner))
