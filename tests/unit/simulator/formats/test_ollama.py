"""Ollama's own API."""

from __future__ import annotations

import json
import unittest

from llmproxy.simulator.formats import ollama
from tests.unit.simulator.formats.call import call, dollars, spoken

CHAT = {"model": "llama3.2", "messages": [{"role": "user", "content": "one two"}]}


class OllamaTests(unittest.TestCase):
    def test_the_last_of_its_lines_counts(self) -> None:
        made = ollama.reply(call("chat", CHAT))
        lines = [json.loads(piece) for piece in made.pieces]
        self.assertEqual([line["done"] for line in lines], [False, False, True])
        self.assertEqual((lines[-1]["prompt_eval_count"], lines[-1]["eval_count"]), (2, 2))
        self.assertEqual(dollars(made), (2 * 0.05 + 2 * 0.2) / 1e6)

    def test_one_answer_where_it_is_not_to_stream(self) -> None:
        made = spoken(ollama.reply(call("generate", {"model": "llama3.2", "prompt": "a b c", "stream": False})))
        self.assertEqual((made["prompt_eval_count"], made["done"]), (3, True))
