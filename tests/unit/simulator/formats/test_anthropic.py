"""Anthropic's formats."""

from __future__ import annotations

import unittest

from llmproxy.simulator.dialect import Refused
from llmproxy.simulator.formats import anthropic
from tests.unit.simulator.formats.call import call, events, spoken

BODY = {
    "model": "claude-sonnet-4-5",
    "max_tokens": 9,
    "system": [{"type": "text", "text": "be brief"}],
    "messages": [{"role": "user", "content": "one two three"}],
}
VERSION = {"anthropic_version": "2023-06-01"}


class MessagesTests(unittest.TestCase):
    def test_tokens_are_words_of_system_and_messages(self) -> None:
        used = spoken(anthropic.reply(call("messages", BODY, **VERSION)))["usage"]
        self.assertEqual((used["input_tokens"], used["output_tokens"]), (5, 2))

    def test_events_come_in_their_order(self) -> None:
        reply = anthropic.reply(call("messages", {**BODY, "stream": True}, **VERSION))
        self.assertEqual(
            [event["type"] for event in events(reply)],
            [
                "message_start",
                "content_block_start",
                "ping",
                "content_block_delta",
                "content_block_delta",
                "content_block_stop",
                "message_delta",
                "message_stop",
            ],
        )

    def test_the_stream_knows_its_output_only_at_the_end(self) -> None:
        found = events(anthropic.reply(call("messages", {**BODY, "stream": True}, **VERSION)))
        self.assertEqual(found[0]["message"]["usage"]["output_tokens"], 1)
        self.assertEqual(found[0]["message"]["usage"]["input_tokens"], 5)
        self.assertEqual(found[-2]["usage"], {"output_tokens": 2})

    def test_counting_agrees_with_messages(self) -> None:
        self.assertEqual(spoken(anthropic.reply(call("messages/count_tokens", BODY, **VERSION))), {"input_tokens": 5})

    def test_what_the_api_demands_is_demanded(self) -> None:
        without = {key: value for key, value in BODY.items() if key != "max_tokens"}
        for made in (call("messages", BODY), call("messages", without, **VERSION)):
            with self.assertRaises(Refused) as caught:
                anthropic.reply(made)
            self.assertEqual(caught.exception.status, 400)

    def test_errors_carry_type_code_and_request_id(self) -> None:
        error = anthropic.error(529, "Overloaded", "busy", "req_1")
        self.assertEqual((error["type"], error["request_id"]), ("error", "req_1"))
        self.assertEqual(
            (error["error"]["type"], error["error"]["details"]["error_code"]), ("overloaded_error", "busy")
        )
