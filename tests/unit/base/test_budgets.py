"""Budgets as people write them."""

from __future__ import annotations

import unittest

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.base import budgets
from llmproxy.model import Budget


class BudgetTests(unittest.TestCase):
    def test_dollars(self) -> None:
        self.assertEqual(budgets.usd("20/month"), Budget(20_000_000_000, "month"))
        self.assertEqual(budgets.usd("0.000000001/day"), Budget(1, "day"))
        self.assertEqual(budgets.usd("5"), Budget(5_000_000_000, "lifetime"))

    def test_tokens(self) -> None:
        self.assertEqual(budgets.tokens("1000000/day"), Budget(1_000_000, "day"))

    def test_what_is_none(self) -> None:
        for text in ("", "0", "-1", "1/year", "20 /month", "1e3", "$5", "1/", "/day", "1.0000000001", "1000001", "٣"):
            with self.assertRaises(ValueError, msg=text):
                budgets.usd(text)
        for text in ("1.5/day", "0/day", "9999999999999999"):
            with self.assertRaises(ValueError, msg=text):
                budgets.tokens(text)

    @given(st.integers(1, budgets.MOST_USD * budgets.NANO), st.sampled_from(["day", "month", "lifetime"]))
    def test_there_and_back(self, amount: int, period: str) -> None:
        budget = Budget(amount, period)
        self.assertEqual(budgets.usd(budgets.usd_text(budget)), budget)

    @given(st.text(max_size=12))
    def test_anything(self, text: str) -> None:
        """No text does more harm than being refused."""
        for read in (budgets.usd, budgets.tokens):
            try:
                self.assertGreater(read(text).amount, 0)
            except ValueError:
                pass

    def test_each_period_once(self) -> None:
        day, month = Budget(1, "day"), Budget(2, "month")
        self.assertEqual(budgets.each_once([month, day]), (day, month))
        with self.assertRaisesRegex(ValueError, "one budget for each period"):
            budgets.each_once([day, Budget(3, "day")])

    def test_nano_dollars(self) -> None:
        """No error of binary fractions adds up."""
        self.assertEqual(budgets.nano(0.1 + 0.2), 300_000_000)
        self.assertEqual(budgets.nano(0.00008250000000000001), 82_500)
        self.assertEqual(budgets.nano(0.0), 0)
