"""What a request can cost at most."""

from __future__ import annotations

import unittest

from llmproxy.metering.prices import OwnPrice, Prices
from llmproxy.metering.windows import WIDEST
from llmproxy.metering.worst import Worst
from tests.reading import read

UNREAD = read(b"neither JSON nor a form")
AT = 1_794_992_800.0
PROVIDERS = {"openai": "openai", "anthropic": "anthropic", "own": ""}


class WorstTests(unittest.TestCase):
    def setUp(self) -> None:
        self.worst = Worst(Prices([OwnPrice("own", "mine-*", 1.0, 2.0)]), PROVIDERS)

    def cost(self, api: str, model: str) -> float | None:
        return self.worst.cost(api, model, 1_000_000, 100_000, AT)

    def test_no_more_than_the_model_can_read(self) -> None:
        self.assertEqual(self.worst.input("openai", "gpt-4o", UNREAD, 50_000_000), 128_000)
        self.assertEqual(self.worst.input("openai", "gpt-4o", UNREAD, 500), 500)

    def test_what_can_be_read_is_reckoned_by_what_it_holds(self) -> None:
        body = b'{"input":"' + b"hello there " * 1000 + b'"}'
        self.assertTrue(2000 < self.worst.input("openai", "gpt-4o", read(body), len(body)) < 3000)

    def test_a_model_that_nobody_knows(self) -> None:
        self.assertEqual(self.worst.input("own", "mine-1", UNREAD, 50_000_000), WIDEST)
        self.assertEqual(self.worst.input("openai", "", UNREAD, 50_000_000), WIDEST)

    def test_the_providers_price(self) -> None:
        cost = self.cost("openai", "gpt-4o")
        assert cost is not None
        self.assertAlmostEqual(cost, 3.5)

    def test_writing_to_the_providers_cache_costs_more(self) -> None:
        """Whether a request does that is not known beforehand."""
        units = {"input_tokens": 1_000_000, "output_tokens": 100_000}
        plain = Prices().cost("anthropic", "anthropic", "", "claude-3-5-haiku-latest", units, AT)
        cost = self.cost("anthropic", "claude-3-5-haiku-latest")
        assert cost is not None and plain is not None
        self.assertGreater(cost, plain)

    def test_prices_of_your_own(self) -> None:
        self.assertEqual(self.cost("own", "mine-1"), 1.2)

    def test_never_less_than_it_will_cost(self) -> None:
        """Whatever the size: the price of a token may hang on how many there are."""
        prices = Prices()
        for model in ("gpt-4o", "gpt-4.1", "gpt-5"):
            for given, made in ((1, 1), (5_000, 4_000), (100_000, 10), (100_001, 10), (900_000, 64_000)):
                units = {"input_tokens": given, "output_tokens": made}
                cost = prices.cost("openai", "openai", "", model, units, AT)
                worst = self.worst.cost("openai", model, given, made, AT)
                assert cost is not None and worst is not None, model
                self.assertGreaterEqual(worst * (1 + 1e-9), cost, (model, given, made))

    def test_remembered_for_a_minute(self) -> None:
        self.worst.cost("openai", "gpt-4o", 10, 10, AT)
        asked = 0

        def cost(*given: object) -> float:
            nonlocal asked
            asked += 1
            return 1.0

        self.worst._prices.cost = cost  # type: ignore[method-assign, assignment]
        for at in (AT, AT + 59, AT + 61, AT + 62):
            self.worst.cost("openai", "gpt-4o", 10, 10, at)
        self.assertEqual(asked, 4)

    def test_no_price(self) -> None:
        self.assertIsNone(self.cost("own", "another"))
        self.assertIsNone(self.cost("openai", "no-such-model"))
