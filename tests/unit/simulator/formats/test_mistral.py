"""Mistral's formats."""

from __future__ import annotations

import unittest

from llmproxy.simulator.dialect import Refused
from llmproxy.simulator.formats import mistral
from tests.unit.simulator.formats.call import call, events, spoken

CHAT = {"model": "mistral-small-latest", "messages": [{"role": "user", "content": "one two three"}]}


class MistralTests(unittest.TestCase):
    def test_usage_is_in_the_last_chunk_unasked(self) -> None:
        *chunks, last, done = events(mistral.reply(call("chat/completions", {**CHAT, "stream": True})))
        self.assertEqual(done, "[DONE]")
        self.assertTrue(all("usage" not in chunk for chunk in chunks))
        self.assertEqual(last["usage"], {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5})
        self.assertEqual(last["choices"][0]["finish_reason"], "stop")

    def test_a_whole_answer_has_the_same_usage(self) -> None:
        self.assertEqual(spoken(mistral.reply(call("chat/completions", CHAT)))["usage"]["total_tokens"], 5)

    def test_unknown_paths_are_not_found(self) -> None:
        with self.assertRaises(Refused):
            mistral.reply(call("responses", CHAT))

    def test_errors_are_flat(self) -> None:
        self.assertEqual(mistral.error(422, "Bad", None, "")["object"], "error")
