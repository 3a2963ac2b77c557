"""Gemini's formats."""

from __future__ import annotations

import json
import unittest

from llmproxy.simulator.dialect import Refused
from llmproxy.simulator.formats import google
from tests.unit.simulator.formats.call import call, dollars, events, spoken

BODY = {
    "contents": [{"role": "user", "parts": [{"text": "one two three"}]}],
    "systemInstruction": {"parts": [{"text": "be brief"}]},
}
STREAM = "models/gemini-2.5-flash:streamGenerateContent"


class GenerateTests(unittest.TestCase):
    def test_tokens_are_words(self) -> None:
        answer = spoken(google.reply(call("models/gemini-2.5-flash:generateContent", BODY)))
        used = answer["usageMetadata"]
        self.assertEqual((used["promptTokenCount"], used["candidatesTokenCount"], used["totalTokenCount"]), (5, 2, 7))
        self.assertEqual(answer["modelVersion"], "gemini-2.5-flash")

    def test_thoughts_stand_beside_and_sound_by_itself(self) -> None:
        counts = {"input": 10, "cached": 5, "audio": 20, "tool": 3, "output": 4, "reasoning": 6}
        made = google.reply(call("models/gemini-2.5-flash:generateContent", BODY, counts=counts, tier="priority"))
        told = spoken(made)["usageMetadata"]
        self.assertEqual((told["promptTokenCount"], told["thoughtsTokenCount"], told["totalTokenCount"]), (35, 6, 48))
        self.assertIn({"modality": "AUDIO", "tokenCount": 20}, told["promptTokensDetails"])
        self.assertEqual(told["serviceTier"], "priority")
        self.assertAlmostEqual(dollars(made), (13 * 0.3 + 5 * 0.03 + 20 * 1 + 10 * 2.5) * 1.8 / 1e6, 12)

    def test_interactions_tell_at_their_end(self) -> None:
        asked = {"model": "gemini-2.5-flash", "input": "a b", "stream": True}
        made = google.reply(call("interactions", asked, counts={"cached": 4, "reasoning": 5}))
        told = events(made)[-2]["interaction"]["usage"]
        self.assertEqual((told["total_input_tokens"], told["total_output_tokens"], told["total_tokens"]), (6, 2, 13))
        self.assertAlmostEqual(dollars(made), (2 * 0.3 + 4 * 0.03 + 7 * 2.5) / 1e6, 12)

    def test_openais_words_have_no_reasoning(self) -> None:
        asked = {"model": "gemini-2.5-flash", "messages": [{"role": "user", "content": "a"}]}
        told = spoken(google.reply(call("openai/chat/completions", asked, counts={"reasoning": 9})))["usage"]
        self.assertEqual(told, {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 12})

    def test_events_are_separated_with_crlf(self) -> None:
        pieces = list(google.reply(call(STREAM, BODY, query={"alt": "sse"})).pieces)
        self.assertTrue(all(piece.startswith(b"data: {") and piece.endswith(b"}\r\n\r\n") for piece in pieces))

    def test_the_last_event_has_the_whole_usage(self) -> None:
        first, last = events(google.reply(call(STREAM, BODY, query={"alt": "sse"})))
        self.assertNotIn("candidatesTokenCount", first["usageMetadata"])
        self.assertEqual(last["usageMetadata"]["totalTokenCount"], 7)
        self.assertEqual(last["candidates"][0]["finishReason"], "STOP")

    def test_without_sse_it_is_one_array_in_pieces(self) -> None:
        reply = google.reply(call(STREAM, BODY))
        self.assertTrue(reply.content_type.startswith("application/json"))
        pieces = list(reply.pieces)
        self.assertEqual((len(json.loads(b"".join(pieces))), len(pieces)), (2, 3))

    def test_counting_agrees_with_generating(self) -> None:
        for body in (BODY, {"generateContentRequest": BODY}):
            self.assertEqual(spoken(google.reply(call("models/g:countTokens", body)))["totalTokens"], 5)

    def test_a_model_name_may_hold_slashes_and_colons(self) -> None:
        answer = spoken(google.reply(call("models/tuned/a:b:generateContent", BODY)))
        self.assertEqual(answer["modelVersion"], "tuned/a:b")

    def test_unknown_verbs_are_not_found(self) -> None:
        for path in ("models/g:fly", "models/g", "elsewhere"):
            with self.subTest(path), self.assertRaises(Refused):
                google.reply(call(path, BODY))

    def test_errors_carry_status_and_reason(self) -> None:
        error = google.error(429, "Slow down", None, "")["error"]
        self.assertEqual((error["code"], error["status"]), (429, "RESOURCE_EXHAUSTED"))
        self.assertEqual(google.error(401, "No", None, "")["error"]["details"][0]["reason"], "API_KEY_INVALID")
