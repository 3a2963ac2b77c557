"""OpenAI's formats."""

from __future__ import annotations

import base64
import struct
import unittest

from llmproxy.simulator.dialect import Refused
from llmproxy.simulator.formats import openai
from tests.unit.simulator.formats.call import call, events, spoken

CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "one two three"}]}


class ChatTests(unittest.TestCase):
    def test_tokens_are_words(self) -> None:
        used = spoken(openai.reply(call("chat/completions", CHAT)))["usage"]
        self.assertEqual((used["prompt_tokens"], used["completion_tokens"], used["total_tokens"]), (3, 2, 5))

    def test_the_same_request_gets_the_same_bytes(self) -> None:
        first, second = (list(openai.reply(call("chat/completions", {**CHAT, "stream": True})).pieces) for _ in "ab")
        self.assertEqual(first, second)

    def test_a_stream_ends_with_done(self) -> None:
        found = events(openai.reply(call("chat/completions", {**CHAT, "stream": True})))
        self.assertEqual(found[-1], "[DONE]")
        self.assertTrue(all("usage" not in chunk for chunk in found[:-1]))

    def test_usage_comes_last_where_it_was_asked_for_and_is_null_before(self) -> None:
        body = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
        *chunks, last, _ = events(openai.reply(call("chat/completions", body)))
        self.assertTrue(all(chunk["usage"] is None for chunk in chunks))
        self.assertEqual((last["choices"], last["usage"]["total_tokens"]), ([], 5))

    def test_stream_and_whole_say_the_same(self) -> None:
        whole = spoken(openai.reply(call("chat/completions", CHAT)))["choices"][0]["message"]["content"]
        chunks = events(openai.reply(call("chat/completions", {**CHAT, "stream": True})))[:-1]
        self.assertEqual("".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks), whole)

    def test_a_body_without_messages_is_refused(self) -> None:
        with self.assertRaises(Refused) as caught:
            openai.reply(call("chat/completions", {"model": "gpt-4o"}))
        self.assertEqual(caught.exception.status, 400)


class ResponsesTests(unittest.TestCase):
    def test_tokens_are_words_of_input_and_instructions(self) -> None:
        used = spoken(openai.reply(call("responses", {"model": "m", "input": "a b", "instructions": "c"})))["usage"]
        self.assertEqual((used["input_tokens"], used["output_tokens"], used["total_tokens"]), (3, 2, 5))

    def test_events_are_named_numbered_and_end_with_completed(self) -> None:
        reply = openai.reply(call("responses", {"model": "m", "input": "a b", "stream": True}))
        pieces = list(reply.pieces)
        found = events(openai.reply(call("responses", {"model": "m", "input": "a b", "stream": True})))
        self.assertEqual([event["sequence_number"] for event in found], list(range(len(found))))
        for piece, event in zip(pieces, found, strict=True):
            self.assertTrue(piece.startswith(f"event: {event['type']}\ndata: ".encode()))
        self.assertEqual(found[-1]["type"], "response.completed")
        self.assertEqual(found[-1]["response"]["usage"]["total_tokens"], 4)
        self.assertIsNone(found[0]["response"]["usage"])


class EmbeddingsTests(unittest.TestCase):
    def test_base64_holds_the_same_numbers(self) -> None:
        body = {"model": "m", "input": ["a", "b c"], "dimensions": 5}
        plain = spoken(openai.reply(call("embeddings", body)))
        packed = spoken(openai.reply(call("embeddings", {**body, "encoding_format": "base64"})))
        for one, other in zip(plain["data"], packed["data"], strict=True):
            self.assertEqual(list(struct.unpack("<5f", base64.b64decode(other["embedding"]))), one["embedding"])
        self.assertEqual(plain["usage"], {"prompt_tokens": 3, "total_tokens": 3})

    def test_an_input_of_token_numbers_is_one_text(self) -> None:
        answer = spoken(openai.reply(call("embeddings", {"model": "m", "input": [1, 2, 3]})))
        self.assertEqual((len(answer["data"]), answer["usage"]["total_tokens"]), (1, 3))


class OtherTests(unittest.TestCase):
    def test_a_model_that_is_not_there_is_not_found(self) -> None:
        with self.assertRaises(Refused) as caught:
            openai.reply(call("models/gpt-0", method="GET"))
        self.assertEqual((caught.exception.status, caught.exception.code), (404, "model_not_found"))

    def test_errors_have_the_four_fields(self) -> None:
        error = openai.error(429, "Slow down", None, "r")["error"]
        self.assertEqual(set(error), {"message", "type", "param", "code"})
        self.assertEqual(error["type"], "rate_limit_error")
