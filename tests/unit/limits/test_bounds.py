"""What a request may use at most, read from its body."""

from __future__ import annotations

import json
import unittest
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.limits.bounds import MOST, Bound, bound

CHAT = b"/v1/chat/completions"
numbers = st.integers(0, 200_000)
names = st.sampled_from(["max_tokens", "max_completion_tokens", "max_output_tokens", "maxTokens"])
values: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def output(body: object, path: bytes = CHAT, default: int = 7) -> int:
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    return bound(path, sent, len(sent), default).output


class BoundTests(unittest.TestCase):
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
        self.assertEqual(output({"messages": []}), 7)

    def test_input_is_the_size(self) -> None:
        self.assertEqual(bound(CHAT, b'{"a": 1}', 8, 7), Bound(8, 7))

    def test_a_body_that_was_not_read(self) -> None:
        self.assertEqual(bound(CHAT, None, 5_000_000, 7), Bound(5_000_000, 7))

    def test_no_body_and_no_json(self) -> None:
        self.assertEqual(bound(b"/v1/models", b"", 0, 7), Bound(0, 0))
        self.assertEqual(bound(b"/v1/files", b"--boundary\r\n", 12, 7), Bound(0, 0))

    def test_what_only_reads(self) -> None:
        for path in (b"/v1/embeddings", b"/v1/messages/count_tokens", b"/v1beta/models/g:countTokens"):
            self.assertEqual(output({"max_tokens": 100}, path), 0)

    def test_a_name_in_a_text_counts_for_nothing(self) -> None:
        """What stands in a message is not the request's own."""
        self.assertEqual(output({"messages": ['{"max_tokens": 99999}'], "max_tokens": 5}), 5)

    def test_disguised(self) -> None:
        """A name is found however JSON spells it, and of two the greater counts."""
        self.assertEqual(output(rb'{"max\u005ftokens": 100000}'), 100_000)
        self.assertEqual(output(b'{"max_tokens": 1, "max_tokens": 500}'), 500)
        self.assertEqual(output(b'{"max_tokens"\t:\r\n 1.5e3}'), 1500)

    def test_beyond_all_reason(self) -> None:
        self.assertEqual(output(b'{"max_tokens": 999999999999999999, "n": 999999}'), MOST)
        self.assertEqual(output(b'{"\\u006eo": 1, "max_tokens": 1e99}'), MOST)

    @given(names, numbers, values, st.booleans())
    def test_found_wherever_it_stands(self, name: str, most: int, rest: Any, escaped: bool) -> None:
        body = json.dumps({"rest": [rest], name: most}, ensure_ascii=True).encode()
        if escaped:
            body = body.replace(b"_", b"\\u005f")
        self.assertGreaterEqual(output(body), most)

    @given(st.binary(max_size=300))
    def test_anything(self, body: bytes) -> None:
        """No body does more harm than being bounded."""
        self.assertGreaterEqual(output(b"{" + body), 0)
        self.assertGreaterEqual(output(rb"{\u0000" + body), 0)
