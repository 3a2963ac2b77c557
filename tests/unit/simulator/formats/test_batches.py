"""Batches and background responses: paid for once, told whenever they are looked at."""

from __future__ import annotations

import json
import unittest

from llmproxy.simulator.dialect import Refused
from llmproxy.simulator.formats import anthropic, openai
from tests.unit.simulator.formats.call import call, dollars, spoken

VERSION = {"anthropic_version": "2023-06-01"}
BATCH = {"input_file_id": "file-1", "endpoint": "/v1/chat/completions", "completion_window": "24h"}


class BatchTests(unittest.TestCase):
    def test_openai(self) -> None:
        made = openai.reply(call("batches", {**BATCH, "metadata": {"model": "gpt-4o"}}))
        self.assertEqual(dollars(made), (1000 * 1.25 + 200 * 5) / 1e6)
        looked = openai.reply(call(f"batches/{spoken(made)['id']}", method="GET"))
        self.assertIsNone(looked.bill)
        self.assertEqual(spoken(looked)["usage"]["total_tokens"], 1200)
        results = openai.reply(call(f"files/{spoken(looked)['output_file_id']}/content", method="GET"))
        assert results.body is not None
        self.assertEqual(json.loads(results.body)["response"]["body"]["usage"]["prompt_tokens"], 1000)

    def test_anthropic(self) -> None:
        params = {"model": "claude-haiku-4-5", "max_tokens": 9, "messages": [{"role": "user", "content": "one two"}]}
        asked = {"requests": [{"custom_id": name, "params": params} for name in "ab"]}
        made = anthropic.reply(call("messages/batches", asked, **VERSION))
        self.assertEqual(dollars(made), (4 * 0.5 + 4 * 2.5) / 1e6)
        results = anthropic.reply(call(f"messages/batches/{spoken(made)['id']}/results", method="GET", **VERSION))
        assert results.body is not None and results.bill is None
        self.assertEqual(json.loads(results.body)["result"]["message"]["usage"]["input_tokens"], 4)

    def test_one_that_nobody_made(self) -> None:
        with self.assertRaises(Refused) as caught:
            openai.reply(call("batches/batch_none", method="GET"))
        self.assertEqual(caught.exception.status, 404)


class BackgroundTests(unittest.TestCase):
    def test_it_is_queued_paid_for_and_fetched(self) -> None:
        asked = {"model": "o3", "input": "a b", "background": True}
        made = openai.reply(call("responses", asked, counts={"reasoning": 100}))
        self.assertEqual((spoken(made)["status"], spoken(made)["usage"]), ("queued", None))
        self.assertEqual(dollars(made), (2 * 2 + 102 * 8) / 1e6)
        looked = openai.reply(call(f"responses/{spoken(made)['id']}", method="GET"))
        self.assertIsNone(looked.bill)
        self.assertEqual((spoken(looked)["status"], spoken(looked)["id"]), ("completed", spoken(made)["id"]))
        self.assertEqual(spoken(looked)["usage"]["output_tokens"], 102)
