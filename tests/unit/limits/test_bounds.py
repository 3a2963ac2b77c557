"""What a request may use at most, read from its body."""

from __future__ import annotations

import json
import unittest

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.limits import bounds
from llmproxy.limits.bounds import MOST
from tests.reading import read

CHAT = b"/v1/chat/completions"


def output(body: object, path: bytes = CHAT, default: int = 7) -> int:
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    return bounds.output(path, read(sent, piece=100), default)


class OutputTests(unittest.TestCase):
    def test_every_name_of_it(self) -> None:
        self.assertEqual(output({"max_tokens": 100}), 100)
        self.assertEqual(output({"max_completion_tokens": 100}), 100)
        self.assertEqual(output({"max_output_tokens": 100}, b"/v1/responses"), 100)
        self.assertEqual(
            output({"generationConfig": {"maxOutputTokens": 100}}, b"/v1beta/models/g:generateContent"), 100
        )
        self.assertEqual(output({"inferenceConfig": {"maxTokens": 100}}, b"/model/m/converse"), 100)

    def test_choices(self) -> None:
        self.assertEqual(output({"max_tokens": 100, "n": 3}), 300)
        self.assertEqual(output({"n": 3}), 21)
        self.assertEqual(output({"generationConfig": {"candidateCount": 2, "maxOutputTokens": 5}}), 10)

    def test_none_given(self) -> None:
        for body in ({"messages": []}, {"max_tokens": None}, {"max_tokens": True}, {"max_tokens": -1}):
            self.assertEqual(output(body), 7)
        self.assertEqual(output(b"neither JSON nor a form"), 7)
        self.assertEqual(output(b""), 0)

    def test_what_only_reads(self) -> None:
        for path in (b"/v1/embeddings", b"/v1/messages/count_tokens", b"/v1beta/models/g:countTokens"):
            self.assertEqual(output({"max_tokens": 100}, path), 0)

    def test_only_its_own(self) -> None:
        """What stands in a message, a tool's input or a schema is not the request's own."""
        for decoy in (
            {"messages": ['{"max_tokens": 99999}']},
            {"messages": [{"content": [{"type": "tool_use", "input": {"max_tokens": 99999, "n": 9}}]}]},
            {"tools": [{"input_schema": {"properties": {"max_tokens": {"default": 9}, "n": 5}}}]},
            {"metadata": {"max_tokens": 99999, "generationConfig": {"maxOutputTokens": 99}}},
        ):
            self.assertEqual(output({**decoy, "max_tokens": 5}), 5)
            self.assertEqual(output(decoy), 7)

    def test_disguised(self) -> None:
        self.assertEqual(output(rb'{"max\u005ftokens": 100000}'), 100_000)
        self.assertEqual(output(b'{"max_tokens"\t:\r\n 1.5e3}'), 1500)

    def test_beyond_all_reason(self) -> None:
        self.assertEqual(output(b'{"max_tokens": 999999999999999999, "n": 999999}'), MOST)
        self.assertEqual(output(b'{"\\u006eo": 1, "max_tokens": 1e99}'), MOST)

    def test_twice(self) -> None:
        """Which of them counts, nobody can say."""
        self.assertEqual(bounds.ambiguous(read(b'{"max_tokens": 1, "max_tokens": 500}')), "max_tokens")
        self.assertEqual(bounds.ambiguous(read(b'{"model": "a", "mode\\u006c": "b"}')), "model")
        self.assertEqual(bounds.ambiguous(read(b'{"x": 1, "x": 2, "max_tokens": 1}')), "")

    @given(st.binary(max_size=300))
    def test_anything(self, body: bytes) -> None:
        """No body does more harm than being bounded."""
        self.assertGreaterEqual(output(b"{" + body), 0)
        self.assertGreaterEqual(output(rb"{\u0000" + body), 0)


class EndpointTests(unittest.TestCase):
    def test_free(self) -> None:
        for path in (b"/v1/files", b"/v1/files/f-1", b"/v1/moderations", b"/v1/messages/count_tokens", b"/v1/x/cancel"):
            self.assertTrue(bounds.is_free(path), path)
        for path in (
            CHAT,
            b"/v1/images/edits",
            b"/v1/batches",
            b"/v1beta/models/g:generateContent",
            b"/v1/threads/runs",
        ):
            self.assertFalse(bounds.is_free(path), path)

    def test_those_that_take_a_model(self) -> None:
        for path in (CHAT, b"/v1/embeddings", b"/v1/images/edits", b"/v1/audio/transcriptions"):
            self.assertTrue(bounds.takes_model(path), path)
        for path in (b"/v1/files", b"/v1/responses/r-1", b"/v1/models"):
            self.assertFalse(bounds.takes_model(path), path)
