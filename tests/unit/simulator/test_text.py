"""The words of simulated models, and counting them."""

from __future__ import annotations

import hashlib
import unittest

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.simulator.text import Text, count

digests = st.binary(max_size=8).map(lambda data: hashlib.sha256(data).hexdigest())


class CountTests(unittest.TestCase):
    def test_a_string_counts_its_words(self) -> None:
        self.assertEqual(count("one two\nthree"), 3)

    def test_messages_count_the_texts_inside_them(self) -> None:
        messages = [
            {"role": "system", "content": "be brief"},
            {
                "role": "user",
                "content": [{"type": "text", "text": "one two three"}, {"type": "image_url", "url": "a b"}],
            },
        ]
        self.assertEqual(count(messages), 5)

    def test_gemini_contents_count_their_parts(self) -> None:
        self.assertEqual(count([{"role": "user", "parts": [{"text": "a b"}, {"text": "c"}]}]), 3)

    def test_a_nest_a_thousand_deep_is_counted(self) -> None:
        value: object = "one"
        for _ in range(5000):
            value = [value]
        self.assertEqual(count(value), 1)


class TextTests(unittest.TestCase):
    @given(digests, st.integers(1, 300))
    def test_without_a_size_there_is_one_word_a_piece(self, digest: str, pieces: int) -> None:
        text = Text(digest, pieces)
        self.assertEqual(len(str(text).split()), pieces)
        self.assertEqual(text.tokens, pieces)
        self.assertEqual(len(list(text)), pieces)

    @given(digests, st.integers(1, 50), st.integers(0, 3000))
    def test_with_a_size_it_has_exactly_that_size(self, digest: str, pieces: int, size: int) -> None:
        text = Text(digest, pieces, size)
        self.assertEqual(len(str(text).encode()), size)
        self.assertEqual(text.tokens, len(str(text).split()))
        self.assertEqual(len(list(text)), pieces)

    @given(digests, st.integers(1, 100), st.none() | st.integers(0, 2000))
    def test_the_pieces_are_the_text(self, digest: str, pieces: int, size: int | None) -> None:
        text = Text(digest, pieces, size)
        self.assertEqual("".join(text), str(text))

    def test_other_requests_get_other_words(self) -> None:
        self.assertNotEqual(str(Text("00000000", 8)), str(Text("00000001", 8)))
