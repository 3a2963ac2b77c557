"""Anthropic's formats."""

from __future__ import annotations

import unittest

from llmproxy.simulator.dialect import Refused, Reply
from llmproxy.simulator.formats import anthropic
from tests.unit.simulator.formats.call import call, dollars, events, spoken

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
        self.assertEqual(found[-2]["usage"]["output_tokens"], 2)

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


class BillTests(unittest.TestCase):
    def paid(self, style: str = "", counts: dict[str, int] | None = None, **more: object) -> Reply:
        body = {**BODY, "model": "claude-opus-4-8", **more}
        return anthropic.reply(call("messages", body, counts=counts, style=style, **VERSION))

    def test_compaction_is_told_in_iterations_alone_and_paid_for(self) -> None:
        made = self.paid(counts={"compaction_input": 1000, "compaction_output": 100})
        told = spoken(made)["usage"]
        self.assertEqual((told["input_tokens"], told["output_tokens"]), (5, 2))
        self.assertEqual([each["input_tokens"] for each in told["iterations"]], [1000, 5])
        self.assertEqual(dollars(made), (1005 * 5 + 102 * 25) / 1e6)

    def test_fast_and_in_the_us(self) -> None:
        made = self.paid(speed="fast", inference_geo="us")
        self.assertEqual(spoken(made)["usage"]["speed"], "fast")
        self.assertAlmostEqual(dollars(made), (5 * 10 + 2 * 50) * 1.1 / 1e6, 12)

    def test_the_last_event_in_zeros(self) -> None:
        found = events(self.paid("zeros", {"searches": 2}, stream=True))[-2]["usage"]
        self.assertEqual((found["input_tokens"], found["server_tool_use"]["web_search_requests"]), (0, 2))
