from __future__ import annotations

from typing import Any
from unittest import TestCase

from llmproxy.errors import ParamNotAllowed
from llmproxy.metering.dialects.operation import UNKNOWN_OPERATION
from llmproxy.metering.dialects.registry import DIALECTS, operation
from llmproxy.metering.output_maximum import check_output, output_members

CHAT = b"/v1/chat/completions"


class OutputMaximum(TestCase):
    def refusal(self, members: dict[str, Any], path: bytes = CHAT, provider: str = "openai") -> str:
        try:
            check_output(operation(provider, path), members, 100, "token")
        except ParamNotAllowed as e:
            return e.message
        return ""

    def test_more_than_the_maximum(self) -> None:
        """Names the member and the maximum; what says nothing of it asks for nothing."""
        self.assertEqual(
            self.refusal({"max_tokens": 101}),
            'The parameter "max_tokens" asks for 101 output tokens. This token allows at most 100.',
        )
        for members in ({}, {"max_tokens": 100}, {"max_tokens": None}, {"max_tokens": 0}, {"max_output_tokens": 999}):
            with self.subTest(members=members):
                self.assertEqual(self.refusal(members), "")

    def test_however_the_endpoint_calls_it(self) -> None:
        for provider, path, members, name in [
            ("openai", CHAT, {"max_completion_tokens": 101, "max_tokens": 1}, "max_completion_tokens"),
            ("openai", b"/v1/responses", {"max_output_tokens": 101}, "max_output_tokens"),
            ("anthropic", b"/v1/messages", {"max_tokens": 101}, "max_tokens"),
            ("google", b"/v1beta/models/g:generateContent", {"generationConfig": {"maxOutputTokens": 101}},
             "generationConfig.maxOutputTokens"),
            ("google", b"/v1beta/models/g:generateContent", {"generation_config": {"max_output_tokens": "101"}},
             "generation_config.max_output_tokens"),
            ("ollama", b"/api/chat", {"options": {"num_predict": 101}}, "options.num_predict"),
            ("", b"/own", {"max_new_tokens": 1, "parameters": {"max_new_tokens": 101}}, "parameters.max_new_tokens"),
        ]:  # fmt: skip
            with self.subTest(path=path, members=members):
                self.assertIn(f'"{name}" asks for 101 output tokens', self.refusal(members, path, provider))

    def test_all_choices_together(self) -> None:
        self.assertEqual(self.refusal({"max_tokens": 50, "n": 2}), "")
        self.assertIn("50 output tokens for each of 3 choices", self.refusal({"max_tokens": 50, "n": 3}))
        self.assertEqual(self.refusal({"n": 3}), "")

    def test_numbers_that_are_none(self) -> None:
        """What one server reads as a number, or as no bound at all, is refused."""
        for value in ("x", "1e3", -1, True, [1], {}, "9" * 40):
            with self.subTest(value=value):
                self.assertIn("is no number", self.refusal({"max_tokens": value}))
        self.assertIn("is no number", self.refusal({"max_tokens": 1, "n": "two"}))
        self.assertIn("endless", self.refusal({"max_tokens": float("inf")}))
        self.assertIn("101", self.refusal({"max_tokens": 100.5}))
        self.assertEqual(self.refusal({"max_tokens": "100"}), "")

    def test_odd_spellings(self) -> None:
        """Some servers' readers take either."""
        self.assertIn("case included", self.refusal({"Max_Tokens": 1}))
        google = {"generationConfig": {"MaxOutputTokens": 1}}
        self.assertIn("case included", self.refusal(google, b"/v1beta/models/g:generateContent", "google"))

    def test_endpoints_without_output(self) -> None:
        self.assertEqual(self.refusal({"max_tokens": 999}, b"/v1/embeddings"), "")

    def test_batches(self) -> None:
        """Each request in one; what stands in a file nobody can tell."""
        path = b"/v1/messages/batches"
        small, large = ({"params": {"model": "c", "max_tokens": count}} for count in (100, 101))
        self.assertEqual(self.refusal({"requests": [small]}, path, "anthropic"), "")
        self.assertIn('"max_tokens" asks for 101', self.refusal({"requests": [small, large]}, path, "anthropic"))
        self.assertIn("does not tell", self.refusal({"requests": "?"}, path, "anthropic"))
        self.assertIn("does not tell", self.refusal({"input_file_id": "f"}, b"/v1/batches"))

    def test_members_that_are_read(self) -> None:
        self.assertEqual(output_members(operation("openai", CHAT)), {"max_tokens", "max_completion_tokens", "n"})
        self.assertIn("max_gen_len", output_members(UNKNOWN_OPERATION))
        for operations in DIALECTS.values():
            for each in operations:
                self.assertTrue(each.makes_text or not each.maxima, each)
