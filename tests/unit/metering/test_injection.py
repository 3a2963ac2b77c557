"""Asking for the usage in a client's place, and keeping the answer from it."""

from __future__ import annotations

import json
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.metering.injection import MAX_HELD_EVENT_BYTES, UsageEventFilter, request_usage
from tests.support.reading import read
from tests.unit.metering.samples import CHAT_USAGE, chunk, events

USAGE = {**chunk(), "choices": [], "usage": CHAT_USAGE}
KEPT = (chunk(usage=None), {**chunk(), "choices": []}, {**chunk(), "usage": CHAT_USAGE})


def swallowed(stream: bytes, cuts: list[int]) -> bytes:
    swallowing = UsageEventFilter()
    edges = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    return b"".join(swallowing.feed(stream[start:end]) for start, end in pairwise(edges)) + swallowing.end()


class AskingTests(SynchronousTestCase):
    def test_all_else_stays(self) -> None:
        """White space, order, numbers that no float holds: every byte but those that ask."""
        body = b' {\n "stream": true, "seed": 12345678901234567890, "temperature": 1.50, "model":"x"}'
        asked = request_usage(body, read(body))
        self.assertEqual(asked, body.replace(b"{", b'{"stream_options":{"include_usage":true},', 1))
        self.assertEqual(json.loads(asked or b""), {**json.loads(body), "stream_options": {"include_usage": True}})

    def test_options_that_are_there(self) -> None:
        """They keep what else they say; no is taken for not having asked."""
        for options in ({"include_obfuscation": False}, {"include_usage": False}, None):
            body = json.dumps({"model": "é", "stream": True, "stream_options": options}).encode()
            told = json.loads(request_usage(body, read(body)) or b"")
            self.assertEqual(told["stream_options"], {**(options or {}), "include_usage": True})
            self.assertEqual(told["model"], "é")

    def test_nothing_to_ask(self) -> None:
        """No stream, asked already, no object, no JSON, options of another type."""
        for body in (
            b'{"model":"x"}',
            b'{"stream":false}',
            b'{"stream":"true"}',
            b'{"stream":true,"stream_options":{"include_usage":true}}',
            b'{"stream":true,"stream_options":7}',
            b"[true]",
            b"stream",
            b"[" * 100_000,
            b"",
        ):
            self.assertIsNone(request_usage(body, read(body)), body[:60])

    def test_a_long_one_with_options(self) -> None:
        """It would take too long to write it anew; without options it need not be."""
        long = {"model": "x", "stream": True, "messages": ["x" * 300_000]}
        self.assertIsNotNone(request_usage(body := json.dumps(long).encode(), read(body)))
        self.assertIsNone(request_usage(body := json.dumps({**long, "stream_options": {}}).encode(), read(body)))


class SwallowingTests(SynchronousTestCase):
    @given(st.sampled_from(["\n", "\r\n", "\r"]), st.lists(st.integers(0, 10_000)))
    def test_the_one_event(self, end: str, cuts: list[int]) -> None:
        """All events but the one that tells the usage, in any pieces: as they were."""
        stream = b": hi" + end.encode() * 2 + events(*KEPT, USAGE, done=True, end=end)
        self.assertEqual(swallowed(stream, cuts), stream.replace(events(USAGE, end=end), b""))

    @given(st.lists(st.sampled_from([b"\n", b"\r", b"data: ", b"x", b'{"choices":[],"usage":{"a_tokens":1}}'])))
    def test_anything(self, parts: list[bytes]) -> None:
        """Whatever comes: nothing is lost where there is no such event."""
        stream = b"".join(parts)
        out = swallowed(stream, [])
        if b"usage" not in stream:
            self.assertEqual(out, stream)

    def test_no_event_waits_for_the_next(self) -> None:
        """What is whole leaves at once."""
        swallowing = UsageEventFilter()
        first = events(chunk())
        self.assertEqual(swallowing.feed(first + b"data: "), first)

    def test_an_event_that_is_too_long(self) -> None:
        """It passes as it comes, and is not held."""
        stream = b"data: " + b"x" * (MAX_HELD_EVENT_BYTES + 100_000) + b"\n\n" + events(USAGE, chunk())
        swallowing = UsageEventFilter()
        out = swallowing.feed(stream[: MAX_HELD_EVENT_BYTES + 50_000])
        self.assertGreater(len(out), MAX_HELD_EVENT_BYTES)
        out += swallowing.feed(stream[MAX_HELD_EVENT_BYTES + 50_000 :]) + swallowing.end()
        self.assertEqual(out, stream.replace(events(USAGE), b""))
