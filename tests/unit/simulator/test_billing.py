"""Bills by hand: what the price pages say for a count, in dollars."""

from __future__ import annotations

import unittest

from llmproxy.simulator.billing import bill, invoice
from llmproxy.simulator.prices import PRICES
from llmproxy.simulator.use import UNITS, Use


def dollars(provider: str, model: str, tier: str = "standard", region: str = "", **counts: int) -> float | None:
    pico = bill(provider, model, Use(**counts), tier, region).pico
    return None if pico is None else pico / 1e12


class BillTests(unittest.TestCase):
    def test_cached_input_has_its_own_price(self) -> None:
        self.assertEqual(dollars("openai", "gpt-4o", input=1000, cached=1000, output=100), 0.0025 + 0.00125 + 0.001)

    def test_reasoning_costs_what_output_does(self) -> None:
        self.assertEqual(dollars("openai", "o3", reasoning=1_000_000), 8)

    def test_tiers(self) -> None:
        counts = {"input": 1_000_000, "output": 1_000_000}
        paid = [dollars("openai", "gpt-5", tier, **counts) for tier in ("standard", "flex", "priority", "batch")]
        self.assertEqual(paid, [11.25, 5.625, 22.5, 5.625])

    def test_searches_are_paid_by_the_call_and_not_dearer_in_the_us(self) -> None:
        self.assertEqual(dollars("anthropic", "claude-opus-4-8", region="us", input=1_000_000, searches=3), 5.53)

    def test_cache_writes_by_how_long_they_last(self) -> None:
        paid = dollars("anthropic", "claude-sonnet-4-5", written=100_000, written_1h=10_000, cached=10_000)
        self.assertEqual(paid, 0.375 + 0.06 + 0.003)

    def test_a_long_prompt_makes_the_whole_request_dear(self) -> None:
        self.assertEqual(dollars("google", "gemini-2.5-pro", input=200_000, output=1000), 0.25 + 0.01)
        self.assertEqual(dollars("google", "gemini-2.5-pro", input=200_001, output=1000), 0.5000025 + 0.015)

    def test_what_is_not_on_the_list_has_no_amount(self) -> None:
        self.assertIsNone(dollars("openai", "gpt-nobody", input=1))
        self.assertIsNone(dollars("openai", "gpt-4o", input=1, audio=1))
        self.assertIsNone(dollars("openai", "gpt-4o", "flex", input=1))

    def test_every_price_is_of_a_unit_that_there_is(self) -> None:
        for models in PRICES.values():
            for price in models.values():
                for rates in (price.rates, price.long, *price.tiers.values()):
                    self.assertLessEqual(rates.keys(), UNITS)


class InvoiceTests(unittest.TestCase):
    def test_sums_by_model_and_counts_what_has_no_price(self) -> None:
        bills = [bill("openai", "gpt-4o", Use(input=2)), bill("openai", "gpt-4o", Use(input=1)), bill("x", "y", Use())]
        found = invoice(({"id": number}, each) for number, each in enumerate(bills))
        self.assertEqual((found["calls"], found["unlisted"], found["nano_usd"]), (3, 1, 7500))
        self.assertEqual(found["models"]["openai/gpt-4o"], {"calls": 2, "unlisted": 0, "nano_usd": 7500})
        self.assertEqual((found["lines"][0]["id"], found["lines"][0]["nano_usd"]), (0, 5000))
        self.assertIsNone(found["lines"][2]["nano_usd"])
