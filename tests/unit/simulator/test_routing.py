"""Which provider a request is for."""

from __future__ import annotations

import unittest

from llmproxy.simulator.keys import Keys
from llmproxy.simulator.routing import route


class RouteTests(unittest.TestCase):
    def check(self, path: str, provider: str, rest: str | None, **fields: str) -> None:
        dialect, found = route(path, {name.replace("_", "-"): value for name, value in fields.items()}, Keys())
        self.assertEqual((dialect.NAME, found), (provider, rest))

    def test_a_prefix_decides(self) -> None:
        self.check("/openai/v1/chat/completions", "openai", "chat/completions")
        self.check("/anthropic/v1/messages", "anthropic", "messages")
        self.check("/google/v1beta/models/g:countTokens", "google", "models/g:countTokens")
        self.check("/mistral/v1/models", "mistral", "models")
        self.check("/azure/openai/deployments/d/embeddings", "azure", "deployments/d/embeddings")

    def test_a_path_that_one_provider_alone_has_decides(self) -> None:
        self.check("/openai/deployments/d/chat/completions", "azure", "deployments/d/chat/completions")
        self.check("/v1/messages/count_tokens", "anthropic", "messages/count_tokens")
        self.check("/v1beta/models", "google", "models")
        self.check("/v1/models/g:generateContent", "google", "models/g:generateContent")
        self.check("/v1/models/g%3AgenerateContent", "google", "models/g:generateContent")

    def test_else_the_credential_decides(self) -> None:
        self.check("/v1/chat/completions", "mistral", "chat/completions", authorization="Bearer sk-sim-mistral")
        self.check("/v1/models", "google", "models", x_goog_api_key="k")
        self.check("/v1/models", "anthropic", "models", anthropic_version="2023-06-01")

    def test_else_it_is_openai(self) -> None:
        self.check("/v1/chat/completions", "openai", "chat/completions", authorization="Bearer who-knows")
        self.check("/somewhere", "openai", None)
        self.check("/", "openai", None)
