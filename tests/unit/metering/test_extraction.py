"""Counts are those of genai-prices, extracted by itself."""

from __future__ import annotations

import genai_prices
from genai_prices.types import Usage as Counts
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.metering.dialects.registry import extract
from llmproxy.metering.dialects.reported_usage import merge
from llmproxy.metering.extraction import count_units
from tests.unit.metering.samples import CHAT_USAGE, ENDED, GEMINI, MESSAGE, RESPONSE, STARTED


class CountTests(SynchronousTestCase):
    """A usage object's counts are those that genai-prices extracts."""

    def test_as_extracted(self) -> None:
        """In the words of each provider."""
        for said, provider, flavour in (
            ({"usage": CHAT_USAGE}, "openai", "chat"),
            ({"usage": CHAT_USAGE}, "azure", "chat"),
            ({"usage": CHAT_USAGE}, "mistral", "default"),
            (RESPONSE, "openai", "responses"),
            (MESSAGE, "anthropic", "default"),
            (GEMINI[2], "google", "default"),
            ({"usage": {"prompt_tokens": 4, "total_tokens": 4}}, "openai", "embeddings"),
            ({"usage": {"inputTokens": 4, "outputTokens": 5, "cacheReadInputTokens": 1}}, "aws", "default"),
        ):
            said = {**said, "model": None, "modelVersion": None}  # type: ignore[dict-item]
            extracted = genai_prices.extract_usage(said, provider_id=provider, api_flavor=flavour).usage
            usage = said.get("usage") or said["usageMetadata"]
            self.assertEqual(Counts(**(count_units(usage, provider) or {})), extracted, flavour)  # type: ignore[arg-type]

    def test_what_nobody_can_have_used(self) -> None:
        """Counts below zero, of other types, or beyond what JSON readers agree on are none."""
        for bad in (-1, True, "5", None, [], 2**60, float("nan")):
            self.assertIsNone(count_units({"prompt_tokens": bad, "completion_tokens": bad}), bad)
        self.assertEqual(count_units({"prompt_tokens": 5, "completion_tokens": -1}), {"input_tokens": 5})

    def test_details_of_any_type(self) -> None:
        """Lists of what they should not hold tell nothing, and what stands beside them counts."""
        for bad in ([{"ttl": 5, "inputTokens": 1}], [5], [None], [[]], {}, "x", [{}] * 200):
            units = count_units({"inputTokens": 4, "outputTokens": 5, "cacheDetails": bad}, "aws")
            self.assertEqual(units, {"input_tokens": 4, "output_tokens": 5})
            units = count_units({"promptTokenCount": 4, "promptTokensDetails": bad}, "google")
            self.assertEqual(units, {"input_tokens": 4})

    def test_merged(self) -> None:
        """What comes later counts, and what is told only once stays."""
        both = merge(extract(STARTED), extract(ENDED))
        self.assertEqual((both.final, both.model), (True, STARTED["message"]["model"]))  # type: ignore[index]
        units = count_units(both.usage or {}, "anthropic")
        assert units is not None
        self.assertEqual((units["input_tokens"], units["output_tokens"]), (160, 25))
