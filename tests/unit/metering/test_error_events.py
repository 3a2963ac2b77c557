"""An error within a 200 is told from a text that speaks of errors, in every provider's words."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.config.api_settings import Api
from llmproxy.config.model import Settings
from llmproxy.metering.catalog import Meters
from llmproxy.metering.error_events import body_error, may_hold_error, stream_error
from llmproxy.metering.estimating import PromptEstimate
from llmproxy.metering.meter import Meter
from tests.unit.metering.samples import CHAT_USAGE

STREAM = [b"Content-Type: text/event-stream"]
JSON = [b"Content-Type: application/json"]
OPENAI = {"error": {"message": "The server had an error", "type": "server_error", "param": None, "code": None}}
ERRORS: list[tuple[Any, str]] = [
    (OPENAI, "server_error"),
    ({"error": {"message": "no", "type": "invalid_request_error", "code": "context_length_exceeded"}},
     "context_length_exceeded"),
    ({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, "overloaded_error"),
    ({"type": "error", "code": "rate_limit_exceeded", "message": "x", "sequence_number": 3}, "rate_limit_exceeded"),
    ({"type": "error", "message": "x"}, "upstream_error"),
    ({"type": "response.failed", "response": {"status": "failed", "error": {"code": "server_error"}}}, "server_error"),
    ({"type": "response.failed", "response": {"status": "failed", "error": None}}, "response_failed"),
    ({"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}, "UNAVAILABLE"),
    ([{"error": {"code": 429, "message": "x", "status": "RESOURCE_EXHAUSTED"}}], "RESOURCE_EXHAUSTED"),
    ({"object": "error", "message": "x", "type": "invalid_request_error", "code": None}, "invalid_request_error"),
    ({"error": {"code": 502, "message": "Provider disconnected"}, "choices": []}, "502"),
    ({"error": "model 'x' not found"}, "upstream_error"),
    ({"event_type": "error", "error": {"code": "deadline_exceeded", "message": "x"}}, "deadline_exceeded"),
    ({"error": {"type": "<script>", "message": "x"}}, "upstream_error"),
]  # fmt: skip
NONE: list[Any] = [
    {"id": "resp_1", "object": "response", "status": "completed", "error": None},
    {"type": "response.completed", "response": {"status": "completed", "error": None}},
    {"id": "ftjob-1", "object": "fine_tuning.job", "error": {"code": None, "message": None, "param": None}},
    {"error": {}},
    {"error": ""},
    {"choices": [{"delta": {"content": "error"}}]},
    {"choices": [{"delta": {"content": '{"error": {"code": "server_error"}}'}}]},
    {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "event: error\n\nevent: error"}},
    {"model": "error", "output": [{"error": {"code": "inner"}}]},
    [], 7, None, "error",
]  # fmt: skip


def event(data: Any, name: str = "") -> bytes:
    return (f"event: {name}\n" if name else "").encode() + b"data: " + json.dumps(data).encode() + b"\n\n"


class BodyTests(SynchronousTestCase):
    def test_errors(self) -> None:
        """Each has the provider's own code, its type where it has none."""
        for said, code in ERRORS:
            self.assertEqual(body_error(said), code, said)
            self.assertEqual(stream_error([event(said)]), code, said)

    def test_none(self) -> None:
        """An answer that speaks of errors, or has an empty place for one, is none."""
        for said in NONE:
            self.assertEqual(body_error(said), "", said)
            self.assertEqual(stream_error([event(said)]), "", said)

    def test_named_only(self) -> None:
        """The event's name is enough, whatever its data are."""
        for data, code in (
            ({"message": "x"}, "upstream_error"),
            ({"code": "busy"}, "busy"),
            ("Oops", "upstream_error"),
        ):
            self.assertEqual(stream_error([event(data, "error")]), code)
        self.assertEqual(stream_error([b"event:error\r\ndata: not JSON\r\n\r\n"]), "upstream_error")
        self.assertEqual(stream_error([b"event: error\n\ndata: {}\n\n", b"event:error"]), "")
        self.assertEqual(stream_error([b": event: error\n\ndata: {}\n\n"]), "")

    @given(
        st.recursive(
            st.none() | st.integers() | st.text(),
            lambda v: (
                st.lists(v)
                | st.dictionaries(
                    st.sampled_from(["error", "type", "code", "status", "message", "response", "object", "x"]), v
                )
            ),
            max_leaves=12,
        )
    )
    def test_anything(self, said: Any) -> None:
        """No shape breaks it, and a code is always one that can be kept and shown."""
        code = body_error(said)
        self.assertTrue(code == "" or (len(code) <= 64 and code.isascii() and code.isprintable()))

    @given(st.text())
    def test_text_never_looks_like_it(self, text: str) -> None:
        """A piece whose only mention of an error is what the model wrote is never an error."""
        piece = event({"choices": [{"delta": {"content": text + ' "error": event: error'}}]})
        self.assertEqual(stream_error([piece]), "")
        self.assertFalse(may_hold_error(event({"t": text.replace("event", "")})) and text != "error")


class MeterTests(SynchronousTestCase):
    def meter(self, lines: list[bytes]) -> Meter:
        api = Api(provider="openai", base_url="http://x", allowed_endpoints=["/**"])
        meters = Meters(Settings(apis={"openai": api}, default_api="openai"))
        dialect = meters.dialect(b"POST", "openai", b"/v1/chat/completions")
        assert dialect is not None
        return Meter(dialect, lines)

    def measured(self, lines: list[bytes], *pieces: bytes) -> tuple[str, str, int]:
        meter = self.meter(lines)
        for piece in pieces:
            meter.feed(piece)
        used = meter.measured(asked="gpt-4o", given=lambda: PromptEstimate(100, 400), complete=True, at=1_764_000_000.0)
        return meter.error, used.basis, used.input_tokens

    def test_stream(self) -> None:
        """What was used until then is counted, as of an answer that broke off; in whatever pieces it came."""
        text = event({"model": "gpt-4o", "choices": [{"index": 0, "delta": {"content": "One"}}]})
        whole = text + event(OPENAI) + b"data: [DONE]\n\n"
        expected = ("server_error", "estimated", 100)
        self.assertEqual(self.measured(STREAM, text, event(OPENAI), b"data: [DONE]\n\n"), expected)
        self.assertEqual(self.measured(STREAM, *(whole[at : at + 7] for at in range(0, len(whole), 7))), expected)
        self.assertEqual(self.measured(STREAM, (text + event(OPENAI))[:-2]), expected)

    def test_good_stream(self) -> None:
        """Usage that the provider told stays exact."""
        text = event({"choices": [{"index": 0, "delta": {"content": "error"}}]})
        last = event({"choices": [], "usage": CHAT_USAGE})
        self.assertEqual(self.measured(STREAM, text, text, last), ("", "exact", 100))

    def test_body(self) -> None:
        """A 200 whose JSON is an error, also one that stands in a body too long to be kept, or in an array."""
        self.assertEqual(self.measured(JSON, json.dumps(OPENAI).encode())[0], "server_error")
        long = json.dumps({"x": "y" * (3 << 20), **OPENAI}).encode()
        self.assertEqual(self.measured(JSON, long)[0], "server_error")
        array = json.dumps([{"candidates": []}, {"error": {"code": 503, "status": "UNAVAILABLE"}}]).encode()
        self.assertEqual(self.measured(JSON, array[:9], array[9:])[0], "UNAVAILABLE")
        self.assertEqual(self.measured(JSON, json.dumps({"error": None, "usage": CHAT_USAGE}).encode())[0], "")
