"""L{llmproxy.base.token_format}."""

from __future__ import annotations

import os
from unittest import TestCase

from llmproxy.base.token_format import is_well_formed, new_token


class TokenFormatTests(TestCase):
    def test_new_tokens_are_well_formed_and_differ(self) -> None:
        made = {new_token(os.urandom) for _ in range(100)}
        self.assertEqual(len(made), 100)
        self.assertTrue(all(is_well_formed(token) and token.startswith("sk-lp-") for token in made))

    def test_all_32_bytes_are_in_it(self) -> None:
        self.assertEqual(new_token(lambda n: b"\xff" * n), "sk-lp-" + "_" * 42 + "8")

    def test_ill_formed(self) -> None:
        good = new_token(os.urandom)
        self.assertTrue(is_well_formed(good))
        for bad in (
            "",
            "sk-lp-",
            good[:-1],
            good + "A",
            good + "\n",
            good[:-1] + "=",
            good[:-1] + "é",
            "sk-xx-" + good[6:],
        ):
            self.assertFalse(is_well_formed(bad), bad)
