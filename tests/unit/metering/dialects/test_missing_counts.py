"""A count that is missing, or that nobody can believe, is estimated: what is billed is never taken for nothing."""

from __future__ import annotations

from typing import Any

import pytest

from llmproxy.model import Usage
from tests.unit.metering.dialects.answers import measured

CHAT, RESPONSES, EMBEDDINGS = "/v1/chat/completions", "/v1/responses", "/v1/embeddings"
MESSAGES, GENERATE, CONVERSE = "/v1/messages", "/v1beta/models/gemini-2.5-pro:generateContent", "/model/m/converse"
TEXT = "word " * 800
GIVEN = 100  # as the request is estimated
MADE = range(1000, 1200)  # as such an answer is

Counts = dict[str, Any]
Right = tuple[int | None, int | None]
"""Input and output; C{None} for one that is estimated."""


def used(provider: str, path: str, usage: Counts) -> Usage:
    place = "usageMetadata" if path == GENERATE else "usage"
    body = {"text": TEXT, "candidates": [{"finishReason": "STOP"}], place: usage}
    return measured(usage if "done" in usage else body, provider, path)


def assert_used(found: Usage, right: Right, case: object = "") -> None:
    given, made = right
    assert found.basis == ("estimated" if None in right else "exact"), case
    assert found.input_tokens == (GIVEN if given is None else given), case
    assert found.output_tokens in MADE if made is None else found.output_tokens == made, case
    assert set(found.details) & {"input_bound", "output_bound"} == {
        *(["input_bound"] if given is None else []),
        *(["output_bound"] if made is None else []),
    }, case


BAD = [None, -5, 1e99, float("nan"), "800", True, [], {}]


@pytest.mark.parametrize("bad", BAD, ids=repr)
def test_counts_that_cannot_be_believed(bad: Any) -> None:
    """In the words of every provider, with the other count beside them."""
    for provider, path, given, made in (
        ("openai", CHAT, "prompt_tokens", "completion_tokens"),
        ("x-ai", CHAT, "prompt_tokens", "completion_tokens"),
        ("mistral", CHAT, "prompt_tokens", "completion_tokens"),
        ("openai", RESPONSES, "input_tokens", "output_tokens"),
        ("anthropic", MESSAGES, "input_tokens", "output_tokens"),
        ("aws", CONVERSE, "inputTokens", "outputTokens"),
        ("google", GENERATE, "promptTokenCount", "candidatesTokenCount"),
        ("google", "/v1beta/interactions", "total_input_tokens", "total_output_tokens"),
    ):
        more = {"input_tokens_details": {}} if path == RESPONSES else {}
        nothing = provider == "google" and bad is None
        assert_used(used(provider, path, {given: 70, made: bad, **more}), (70, 0 if nothing else None), (given, bad))
        assert_used(used(provider, path, {given: bad, made: 80, **more}), (None, 80), (given, bad))
        if not nothing:
            assert_used(used(provider, path, {given: bad, made: bad, **more}), (None, None), (given, bad))
    for counts, right in (
        ({"prompt_eval_count": 70, "eval_count": bad}, (70, 0 if bad is None else None)),
        ({"prompt_eval_count": bad, "eval_count": 80}, (0 if bad is None else None, 80)),
    ):
        found = measured({"done": True, "message": {"content": TEXT}, **counts}, "ollama", "/api/chat")
        assert_used(found, right, counts)
    cohere = {"meta": {"billed_units": {"input_tokens": 70, "output_tokens": bad}}, "text": TEXT}
    assert_used(measured(cohere, "cohere", "/v1/chat"), (70, None), bad)


@pytest.mark.parametrize(
    ("provider", "path", "usage", "right"),
    [
        # The total tells the one that is missing.
        ("openai", CHAT, {"prompt_tokens": None, "completion_tokens": 800, "total_tokens": 900}, (100, 800)),
        ("openai", CHAT, {"prompt_tokens": -1000, "completion_tokens": 100, "total_tokens": 1100}, (1000, 100)),
        ("openai", CHAT, {"prompt_tokens": float("nan"), "completion_tokens": 100, "total_tokens": 1100}, (1000, 100)),
        ("openai", CHAT, {"completion_tokens": 800, "total_tokens": 900}, (100, 800)),
        ("openai", CHAT, {"prompt_tokens": 100, "completion_tokens": None, "total_tokens": 900}, (100, 800)),
        ("openai", RESPONSES, {"input_tokens": None, "output_tokens": 800, "total_tokens": 900}, (100, 800)),
        ("openai", RESPONSES, {"input_tokens": 100, "total_tokens": 900}, (100, 800)),
        ("google", GENERATE, {"candidatesTokenCount": 80, "totalTokenCount": 90}, (10, 80)),
        ("google", GENERATE, {"promptTokenCount": 10, "totalTokenCount": 90}, (10, 80)),
        ("google", GENERATE, {"promptTokenCount": 10, "candidatesTokenCount": -1, "totalTokenCount": 90}, (10, 80)),
        # It does not.
        ("openai", CHAT, {"prompt_tokens": None, "completion_tokens": 800, "total_tokens": 800}, (None, 800)),
        ("openai", CHAT, {"prompt_tokens": None, "completion_tokens": 800, "total_tokens": 700}, (None, 800)),
        ("openai", CHAT, {"prompt_tokens": 70, "completion_tokens": None, "total_tokens": 70}, (70, None)),
        ("openai", CHAT, {"prompt_tokens": 70, "completion_tokens": None, "total_tokens": 60}, (70, None)),
        ("openai", CHAT, {"prompt_tokens": None, "completion_tokens": None, "total_tokens": 900}, (None, None)),
        ("openai", CHAT, {"prompt_tokens": 70}, (70, None)),
        ("openai", CHAT, {"completion_tokens": 80}, (None, 80)),
        ("google", GENERATE, {"candidatesTokenCount": 80, "totalTokenCount": 80}, (None, 80)),
        # What is a part is not the whole.
        (
            "x-ai",
            CHAT,
            {"prompt_tokens": 70, "completion_tokens": None, "completion_tokens_details": {"reasoning_tokens": 5}},
            (70, None),
        ),
        ("anthropic", MESSAGES, {"input_tokens": None, "cache_read_input_tokens": 5, "output_tokens": 80}, (None, 80)),
        ("aws", CONVERSE, {"inputTokens": None, "cacheReadInputTokens": 5, "outputTokens": 80}, (None, 80)),
        ("google", GENERATE, {"promptTokenCount": 7, "candidatesTokenCount": -1, "thoughtsTokenCount": 4}, (7, None)),
        ("google", GENERATE, {"toolUsePromptTokenCount": 7, "candidatesTokenCount": 80}, (None, 80)),
        # What is left out is nothing.
        ("google", GENERATE, {"promptTokenCount": 70, "totalTokenCount": 70}, (70, 0)),
        ("google", GENERATE, {"promptTokenCount": 70, "thoughtsTokenCount": 9, "totalTokenCount": 79}, (70, 9)),
        ("google", GENERATE, {"promptTokenCount": 70}, (70, 0)),
        ("openai", "/v1/completions", {"prompt_tokens": 70, "total_tokens": 70}, (70, 0)),
        ("openai", EMBEDDINGS, {"prompt_tokens": 70, "total_tokens": 70}, (70, 0)),
        ("openai", EMBEDDINGS, {"prompt_tokens": 70}, (70, 0)),
        ("", EMBEDDINGS, {"total_tokens": 70}, (70, 0)),
        ("", "/v2/rerank", {"billed_units": {"search_units": 1}}, (0, 0)),
        ("", "/v2/rerank", {"search_units": 1}, (0, 0)),
        ("google", "/v1beta/models/e:embedContent", {"prompt_tokens": 70}, (70, 0)),
    ],
)
def test_one_count_alone(provider: str, path: str, usage: Counts, right: Right) -> None:
    assert_used(used(provider, path, usage), right)


def test_what_was_cached_is_the_least_of_the_input() -> None:
    usage = {"input_tokens": None, "cache_read_input_tokens": 5000, "output_tokens": 80}
    found = used("anthropic", MESSAGES, usage)
    assert (found.input_tokens, found.cached_tokens, found.details["input_bound"]) == (5000, 5000, 5000)
    assert found.cost_usd is None or found.cost_usd > 0


def test_what_was_thought_is_the_least_of_the_output() -> None:
    details = {"completion_tokens_details": {"reasoning_tokens": 5000}}
    found = used("openai", CHAT, {"prompt_tokens": 70, "completion_tokens": None, **details})
    assert (found.basis, found.output_tokens, found.reasoning_tokens) == ("estimated", 5000, 5000)


def test_streams() -> None:
    """Of what several events say together: the beginning of a message has its input, the end of it its output."""
    text = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": TEXT}}
    for start, end, given in (
        ({"input_tokens": 70, "output_tokens": 1}, {"output_tokens": 80}, 70),
        ({"output_tokens": 1}, {"output_tokens": 80}, None),
        ({"input_tokens": 70, "output_tokens": 1}, {"output_tokens": 80, "input_tokens": None}, 70),
    ):
        message = {"type": "message", "model": "claude-sonnet-4-5", "usage": start}
        told = [{"type": "message_start", "message": message}, text, {"type": "message_delta", "usage": end}]
        assert_used(measured(told, "anthropic", MESSAGES), (given, 80))
    chunk = {"choices": [{"delta": {"content": TEXT}, "finish_reason": "stop"}], "usage": None}
    told = [chunk, {"choices": [], "usage": {"prompt_tokens": 70, "completion_tokens": None}}]
    found = measured(told)
    assert (found.basis, found.input_tokens, found.output_tokens > 300) == ("estimated", 70, True)
