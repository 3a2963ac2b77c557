"""Chat completions in the accents of those who speak OpenAI's language."""

from __future__ import annotations

import unittest
from typing import Any

from llmproxy.simulator.formats.chat import chat
from tests.unit.simulator.formats.call import call, dollars, events, spoken

ASKED = {"model": "gpt-4o", "messages": [{"role": "user", "content": "one two three"}]}
COUNTS = {"input": 70, "cached": 30, "output": 20, "reasoning": 5}


class UsageTests(unittest.TestCase):
    def told(self, style: str, model: str = "gpt-4o") -> dict[str, Any]:
        return dict(spoken(chat(call("", {**ASKED, "model": model}, counts=COUNTS, style=style)))["usage"])

    def test_reasoning_is_within_with_openai_and_beside_with_others(self) -> None:
        """The total is the same wherever reasoning stands."""
        found = {style: self.told(style) for style in ("", "xai", "total", "bare")}
        self.assertEqual([found[style]["completion_tokens"] for style in found], [25, 20, 20, 25])
        self.assertEqual({told["total_tokens"] for told in found.values()}, {125})
        self.assertEqual(found["xai"]["completion_tokens_details"]["reasoning_tokens"], 5)
        self.assertNotIn("completion_tokens_details", found["total"])

    def test_moonshot_tells_its_cache_at_the_top(self) -> None:
        self.assertEqual(self.told("moonshot")["cached_tokens"], 30)

    def test_the_seller_is_paid(self) -> None:
        paid = chat(call("", {**ASKED, "model": "kimi-k2-0905-preview"}, counts=COUNTS, style="moonshot"))
        self.assertEqual(dollars(paid), (70 * 0.6 + 30 * 0.15 + 25 * 2.5) / 1e6)

    def test_a_tier_is_answered_only_where_it_is_sold(self) -> None:
        asked = [call("", {**ASKED, "service_tier": tier}) for tier in ("priority", "flex")]
        tiers = [spoken(chat(each))["service_tier"] for each in asked]
        self.assertEqual(tiers, ["priority", "default"])
        steered = chat(call("", {**ASKED, "service_tier": "priority"}, tier="default", counts={"input": 1000}))
        self.assertEqual(spoken(steered)["service_tier"], "default")


class StreamTests(unittest.TestCase):
    def last(self, style: str) -> Any:
        return events(chat(call("", {**ASKED, "stream": True}, counts=COUNTS, style=style)))[-2]

    def test_where_the_last_chunk_has_it(self) -> None:
        self.assertNotIn("usage", self.last(""))
        self.assertEqual(self.last("xai")["usage"]["total_tokens"], 125)
        self.assertEqual(self.last("groq")["x_groq"]["usage"]["total_tokens"], 125)
        self.assertEqual(self.last("moonshot")["choices"][0]["usage"]["total_tokens"], 125)
