"""Amazon's event streams as events."""

from __future__ import annotations

import json
import struct
import unittest
from base64 import b64encode
from typing import Any
from zlib import crc32

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.metering.estimating import PromptEstimate
from llmproxy.metering.frames import MAX_READ_FRAME_BYTES, EventStreamDecoder
from llmproxy.metering.meter import Meter, dialect
from llmproxy.metering.prices import Prices

NOVA = b"/model/amazon.nova-pro-v1:0/converse-stream"
LINES = [b"Content-Type: application/vnd.amazon.eventstream"]


def frame(value: Any, name: str = ":event-type", said: str = "metadata") -> bytes:
    payload = value if isinstance(value, bytes) else json.dumps(value).encode()
    head = bytes([len(name)]) + name.encode() + struct.pack(">BH", 7, len(said)) + said.encode()
    start = struct.pack(">II", len(head) + len(payload) + 16, len(head))
    body = start + struct.pack(">I", crc32(start)) + head + payload
    return body + struct.pack(">I", crc32(body))


TEXT = {"contentBlockIndex": 0, "delta": {"text": "two words"}}
STREAM = frame(TEXT) * 3 + frame({"usage": {"inputTokens": 100, "outputTokens": 20, "cacheReadInputTokens": 50}})


class FramesTests(unittest.TestCase):
    def read(self, data: bytes, size: int = 7) -> tuple[list[Any], bool]:
        """The events of a stream that came in pieces of so many bytes."""
        found: list[bytes] = []
        frames = EventStreamDecoder(found.append)
        for at in range(0, len(data), size):
            frames.feed(data[at : at + size])
        events = b"".join(found).split(b"\n\n")[:-1]
        return [json.loads(event.removeprefix(b"data: ")) for event in events], frames.failed

    def test_payloads_in_their_order(self) -> None:
        events, failed = self.read(STREAM)
        self.assertEqual((events[:3], events[3]["usage"]["inputTokens"], failed), ([TEXT] * 3, 100, False))

    def test_a_models_own_event_stands_in_base64(self) -> None:
        own = {"type": "message_delta", "usage": {"output_tokens": 5}}
        events, _ = self.read(frame({"bytes": b64encode(json.dumps(own, indent=1).encode()).decode()}))
        self.assertEqual(events, [own])

    def test_an_exception_is_an_error(self) -> None:
        events, _ = self.read(frame({"message": "slow down"}, ":exception-type", "throttlingException"))
        self.assertEqual(events[0]["error"]["code"], "throttlingException")

    def test_what_is_none_is_not_read_on(self) -> None:
        for data in (b"data: {}\n\n" * 9, STREAM[:8] + b"\0\0\0\0" + STREAM[12:], b"\xff" * 99):
            self.assertEqual(self.read(data), ([], True))

    def test_a_frame_that_is_too_long_is_passed_over(self) -> None:
        events, failed = self.read(frame(b'"' + b"x" * MAX_READ_FRAME_BYTES + b'"') + STREAM, 60_000)
        self.assertEqual((len(events), failed), (4, False))

    def test_payloads_that_are_no_json_say_nothing(self) -> None:
        self.assertEqual(self.read(frame(b"{") + frame({"bytes": "?"}) + frame([1]))[0], [{}, {}, [1]])

    @given(st.binary(max_size=200), st.integers(1, 50))
    def test_any_bytes(self, data: bytes, size: int) -> None:
        self.read(STREAM + data, size)

    @given(st.integers(1, len(STREAM)))
    def test_any_cut(self, size: int) -> None:
        self.assertEqual(len(self.read(STREAM, size)[0]), 4)


class MeterTests(unittest.TestCase):
    def measured(self, data: bytes) -> tuple[Any, str]:
        meter = Meter(dialect("bedrock", "aws", Prices(), NOVA), LINES)
        for at in range(0, len(data), 11):
            meter.feed(data[at : at + 11])
        return meter.measured(
            asked="amazon.nova-pro-v1:0", given=lambda: PromptEstimate(10, 40), complete=True, at=1.7e9
        ), meter.error

    def test_counts_are_exact(self) -> None:
        usage, error = self.measured(STREAM)
        self.assertEqual((usage.basis, usage.input_tokens, usage.cached_tokens), ("exact", 150, 50))
        self.assertEqual((usage.output_tokens, error), (20, ""))

    def test_a_stream_that_ends_in_an_exception(self) -> None:
        usage, error = self.measured(frame(TEXT) + frame({}, ":exception-type", "modelStreamErrorException"))
        self.assertEqual((usage.basis, error), ("estimated", "modelStreamErrorException"))
