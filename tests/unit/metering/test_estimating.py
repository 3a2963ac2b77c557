"""Estimates against what real tokenizers make of real-shaped prompts.

C{prompts.jsonl} has request bodies in 20 languages, code, logs, tables, tools and long conversations, and how many
tokens o200k_base, cl100k_base (OpenAI), Claude's published tokenizer and Gemma 3's (Gemini's) make of their texts, with
four more for each message.
"""

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path
from statistics import median
from typing import Any
from unittest import TestCase

from llmproxy.http.text_measure import TextMeasure
from llmproxy.metering.estimating import (
    MAX_CONTEXT_TOKENS,
    PromptEstimate,
    context_window,
    estimate_prompt,
    tokenizer_of,
)
from tests.support.reading import read
from tests.unit.http.test_media_heads import PNG

PROMPTS: list[dict[str, Any]] = [
    json.loads(line) for line in (Path(__file__).parent / "prompts.jsonl").read_text().splitlines()
]
MODELS = (
    ("openai", "gpt-5", "o200k"),
    ("openai", "gpt-4-turbo", "cl100k"),
    ("anthropic", "claude-sonnet-4-5", "claude"),
    ("google", "gemini-2.5-pro", "gemma"),
)


def estimate(body: bytes, provider: str = "openai", model: str = "gpt-4o") -> PromptEstimate:
    return estimate_prompt(read(body, piece=65_536), len(body), provider, model)


class Prompts(TestCase):
    def test_likely_and_most(self) -> None:
        for provider, model, tokenizer in MODELS:
            likely, most = [], []
            for each in PROMPTS:
                estimated = estimate(each["body"].encode(), provider, model)
                likely.append(estimated.likely / each["tokens"][tokenizer])
                most.append((estimated.most / each["tokens"][tokenizer], each["name"]))
            with self.subTest(model=model):
                self.assertTrue(0.95 < median(likely) < 1.2, median(likely))
                self.assertLess(median(ratio for ratio, _ in most), 1.7)
                self.assertLessEqual(sum(ratio < 1 for ratio, _ in most), 1, sorted(most)[:3])
                self.assertGreater(min(most)[0], 0.9)

    def test_in_any_pieces(self) -> None:
        """Nearly the same, wherever the pieces end."""
        for each in PROMPTS[::7]:
            body = each["body"].encode()
            once = estimate_prompt(read(body), len(body), "openai", "gpt-4o").likely
            apart = estimate_prompt(read(body, piece=997), len(body), "openai", "gpt-4o").likely
            self.assertLess(abs(once - apart), 0.03 * once + 5, each["name"])


class Tokenizers(TestCase):
    def test_each_has_a_rate_for_every_kind_of_text(self) -> None:
        for provider in ("openai", "anthropic", "google", "mistral", ""):
            self.assertEqual(len(tokenizer_of(provider, "").rates), len(TextMeasure._fields), provider)


class Windows(TestCase):
    def test_never_more_than_the_model_can_read(self) -> None:
        body = json.dumps({"input": "word " * 500_000}).encode()
        self.assertEqual(estimate(body), PromptEstimate(128_000, 128_000))

    def test_what_cannot_be_read(self) -> None:
        """No token is shorter than a byte."""
        self.assertEqual(estimate(b"x" * 4000), PromptEstimate(1000, 4000))


class Pictures(TestCase):
    def test_ten_of_them(self) -> None:
        """Three megabytes of pictures fit 50,000 tokens a minute."""
        picture = b64encode(PNG + bytes(225_000)).decode()
        parts = [{"inlineData": {"mimeType": "image/png", "data": picture}}] * 10
        body = json.dumps({"contents": [{"parts": parts}]}).encode()
        for provider, model in (("google", "gemini-3-pro"), ("anthropic", "claude-sonnet-4-5"), ("openai", "gpt-4o")):
            estimated = estimate(body, provider, model)
            self.assertLess(estimated.most, 50_000)
            self.assertGreater(estimated.most, 5_000)
        self.assertTrue(11_200 <= estimate(body, "google", "gemini-3-pro").likely < 11_400)


def test_known_and_unknown() -> None:
    assert context_window("openai", "gpt-4o") == 128_000
    assert context_window("openai", "") == context_window("nobody", "x") == MAX_CONTEXT_TOKENS
