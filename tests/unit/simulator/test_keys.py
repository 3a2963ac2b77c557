"""Which keys the simulator knows."""

from __future__ import annotations

import unittest

from llmproxy.simulator.keys import Keys, parse, parse_file


class KeysTests(unittest.TestCase):
    def test_each_provider_knows_its_own_key_only(self) -> None:
        keys = Keys()
        self.assertTrue(keys.knows("openai", "sk-sim-openai"))
        self.assertFalse(keys.knows("anthropic", "sk-sim-openai"))
        self.assertFalse(keys.knows("openai", None))

    def test_given_keys_replace_that_providers_default(self) -> None:
        keys = Keys([("openai", "sk-a"), ("openai", "sk-b")])
        self.assertTrue(keys.knows("openai", "sk-a") and keys.knows("openai", "sk-b"))
        self.assertFalse(keys.knows("openai", "sk-sim-openai"))
        self.assertTrue(keys.knows("google", "sk-sim-google"))

    def test_a_key_may_hold_an_equals_sign(self) -> None:
        self.assertEqual(parse("azure=abc=="), ("azure", "abc=="))

    def test_nonsense_is_refused(self) -> None:
        for text in ("openai", "openai=", "closedai=sk"):
            with self.subTest(text), self.assertRaises(ValueError):
                parse(text)

    def test_a_file_has_a_key_a_line_and_comments(self) -> None:
        self.assertEqual(
            parse_file("# ours\n\nopenai=sk-a\n mistral = sk-m \n"), [("openai", "sk-a"), ("mistral", "sk-m")]
        )
