"""Which operation a path leads to."""

from __future__ import annotations

import pytest

from llmproxy.metering.dialects.registry import DIALECTS, operation

PATHS = [
    ("openai", "/v1/chat/completions", "chat"),
    ("openai", "/v1/completions", "completions"),
    ("openai", "/v1/responses", "responses"),
    ("openai", "/v1/responses/input_tokens", "count"),
    ("openai", "/v1/responses/resp_1/cancel", "cancel"),
    ("openai", "/v1/audio/speech", "speech"),
    ("openai", "/v1/audio/transcriptions", "transcription"),
    ("openai", "/v1/images/edits", "images"),
    ("openai", "/v1/videos", "video"),
    ("openai", "/v1/moderations", "moderation"),
    ("openai", "/v1/batches", "batch"),
    ("openai", "/v1/fine_tuning/jobs", "fine_tuning"),
    ("openai", "/v1/files", "storage"),
    ("openai", "/v1/what/nobody/knows", ""),
    ("azure", "/openai/deployments/ours/chat/completions", "chat"),
    ("anthropic", "/v1/messages", "messages"),
    ("anthropic", "/v1/messages/count_tokens", "count"),
    ("anthropic", "/v1/messages/batches", "batch"),
    ("google", "/v1beta/models/gemini-3-pro:streamGenerateContent", "generate"),
    ("google", "/v1/projects/p/locations/l/publishers/anthropic/models/claude:rawPredict", "raw"),
    ("google", "/v1beta/openai/chat/completions", "chat"),
    ("google", "/v1/messages", "messages"),
    ("mistral", "/v1/fim/completions", "fim"),
    ("mistral", "/v1/agents/completions", "agents"),
    ("mistral", "/v1/conversations", "conversations"),
    ("openai", "/v1/conversations", "storage"),
    ("aws", "/model/anthropic.claude-3%3A0/converse-stream", "converse"),
    ("", "/api/chat", "generate"),
    ("", "/v1/fim/completions", "fim"),
    ("", "/v2/rerank", "rerank"),
]


@pytest.mark.parametrize(("provider", "path", "name"), PATHS)
def test_a_path_leads_to_what_its_provider_or_else_anybody_does_there(provider: str, path: str, name: str) -> None:
    """An OpenAI-shaped endpoint under another provider is one all the same."""
    assert operation(provider, path.encode()).name == name


def test_what_makes_text_has_a_maximum() -> None:
    """Whatever makes text can be bounded by its request."""
    for operations in DIALECTS.values():
        for each in operations:
            assert each.paths
            assert not each.makes_text or each.maxima, each.name
            assert not (each.free and each.makes_text), each.name
