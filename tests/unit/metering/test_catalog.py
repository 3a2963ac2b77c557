"""Which answers are measured, and with whose words and prices."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from llmproxy.config.api_settings import Api
from llmproxy.config.model import Settings
from llmproxy.metering.catalog import MAX_REMEMBERED_PATHS, Meters, provider

CHAT = b"/v1/chat/completions"


def api(**more: Any) -> Api:
    return Api(**{"base_url": "https://llm.example.com", "allowed_endpoints": ["/**"], **more})


class MetersTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.meters = Meters(
            Settings(
                default_api="openai",
                apis={
                    "openai": api(provider="openai"),
                    "house": api(),
                    "dark": api(metering={"enabled": False}),
                },
                prices=[{"api": "house", "model": "llama*", "input": 1, "output": 2.5}],
            )
        )

    def test_which_are(self) -> None:
        """Requests that may use something, of APIs that are to be measured."""
        self.assertIsNotNone(self.meters.dialect(b"POST", "openai", CHAT))
        for method, name, path in (
            (b"GET", "openai", b"/v1/responses/r1"),
            (b"POST", "openai", b"/v1/responses/r1/cancel"),
            (b"POST", "dark", CHAT),
        ):
            self.assertIsNone(self.meters.dialect(method, name, path))

    def test_what_is_estimated(self) -> None:
        """Where text is made, and where text is taken."""
        for path, takes, makes in (
            (CHAT, True, True),
            (b"/openai/deployments/d/chat/completions", True, True),
            (b"/v1/responses", True, True),
            (b"/v1/messages", True, True),
            (b"/v1beta/models/gemini-2.5-pro:streamGenerateContent", True, True),
            (b"/model/anthropic.claude/invoke", True, True),
            (b"/v1/embeddings", True, False),
            (b"/v1beta/models/e:batchEmbedContents", True, False),
            (b"/v1/messages/count_tokens", False, False),
            (b"/v1/audio/speech", False, False),
            (b"/v1/files", False, False),
        ):
            found = self.meters.dialect(b"POST", "openai", path)
            assert found is not None
            self.assertEqual((found.takes, found.makes), (takes, makes), path)

    def test_prices_of_the_settings(self) -> None:
        """They hold for the API that they are for."""
        found = self.meters.dialect(b"POST", "house", CHAT)
        assert found is not None
        units = {"input_tokens": 1_000_000, "output_tokens": 1_000_000}
        self.assertEqual(found.prices.cost("house", "", "llama-3", "", units, 0.0), 3.5)
        self.assertIsNone(found.prices.cost("openai", "", "llama-3", "", units, 0.0))

    def test_paths_without_end(self) -> None:
        """Clients that make up paths do not fill the memory."""
        for number in range(MAX_REMEMBERED_PATHS + 10):
            self.meters.dialect(b"POST", "house", b"/%d" % number)
        self.assertLessEqual(len(self.meters._dialects), MAX_REMEMBERED_PATHS)

    def test_whose_list(self) -> None:
        """By what the settings call the provider, else by where it is."""
        for settings, name in (
            ({"provider": "openai"}, "openai"),
            ({"provider": "bedrock-bearer"}, "aws"),
            ({"base_url": "https://api.deepseek.com"}, "deepseek"),
            ({"base_url": "https://api.groq.com/openai"}, "groq"),
            ({"base_url": "http://127.0.0.1:8000"}, ""),
        ):
            self.assertEqual(provider(api(**settings)), name)
