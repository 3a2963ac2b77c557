"""Azure's formats."""

from __future__ import annotations

import unittest

from llmproxy.simulator.dialect import Refused
from llmproxy.simulator.formats import azure
from tests.unit.simulator.formats.call import call, events, spoken

CHAT = {"messages": [{"role": "user", "content": "one two three"}]}
PATH = "deployments/mine/chat/completions"
VERSION = {"api-version": "2024-10-21"}


class AzureTests(unittest.TestCase):
    def test_the_deployment_is_the_model_where_none_is_named(self) -> None:
        self.assertEqual(spoken(azure.reply(call(PATH, CHAT, query=VERSION)))["model"], "mine")

    def test_a_stream_begins_with_a_chunk_without_choices(self) -> None:
        found = events(azure.reply(call(PATH, {**CHAT, "stream": True}, query=VERSION)))
        self.assertEqual(found[0]["choices"], [])
        self.assertIn("prompt_filter_results", found[0])
        self.assertEqual(found[-1], "[DONE]")

    def test_embeddings_stand_under_a_deployment_too(self) -> None:
        answer = spoken(azure.reply(call("deployments/mine/embeddings", {"input": "a b"}, query=VERSION)))
        self.assertEqual(answer["usage"]["total_tokens"], 2)

    def test_without_an_api_version_there_is_nothing(self) -> None:
        with self.assertRaises(Refused) as caught:
            azure.reply(call(PATH, CHAT))
        self.assertEqual(caught.exception.status, 404)
