"""What Anthropic's answers used and cost. Right values by its price page and guides, November 2026."""

from __future__ import annotations

from typing import Any

import pytest

from llmproxy.metering.dialects import anthropic
from tests.unit.metering.dialects.answers import counts, measured

PATH = "/v1/messages"
SONNET, OPUS = "claude-sonnet-4-5-20250929", "claude-opus-4-8"


def message(usage: dict[str, Any], model: str = SONNET) -> dict[str, Any]:
    return {"id": "m", "type": "message", "role": "assistant", "model": model, "content": [], "usage": usage}


def streamed(start: dict[str, Any], delta: dict[str, Any], model: str = SONNET) -> list[dict[str, Any]]:
    return [
        {"type": "message_start", "message": message(start, model)},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x"}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": delta},
        {"type": "message_stop"},
    ]


@pytest.mark.parametrize("provider", ["anthropic", "google", "", "openai"])
@pytest.mark.parametrize(
    "delta",
    [
        {"input_tokens": 0, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0, "output_tokens": 90},
        {"input_tokens": None, "output_tokens": 90, "cache_creation": {}, "server_tool_use": None},
        {"output_tokens": 90},
    ],
)
def test_zeros_erase_nothing(provider: str, delta: dict[str, Any]) -> None:
    """Under any provider that has such an endpoint."""
    start = {
        "input_tokens": 1200,
        "cache_read_input_tokens": 4000,
        "cache_creation_input_tokens": 0,
        "output_tokens": 1,
    }
    used = measured(streamed(start, delta), provider, PATH)
    assert (counts(used), used.basis) == ((5200, 4000, 0, 90), "exact")
    if provider == "anthropic":
        assert used.cost_usd == pytest.approx((1200 * 3 + 4000 * 0.3 + 90 * 15) / 1e6)


WRITTEN = {
    "input_tokens": 50,
    "cache_creation_input_tokens": 3000,
    "cache_read_input_tokens": 10000,
    "output_tokens": 500,
    "cache_creation": {"ephemeral_5m_input_tokens": 1000, "ephemeral_1h_input_tokens": 2000},
}


@pytest.mark.parametrize("said", [message(WRITTEN), streamed({**WRITTEN, "output_tokens": 1}, {"output_tokens": 500})])
def test_what_was_written_for_minutes_and_for_an_hour(said: Any) -> None:
    """1.25 and 2 times the price of input, a tenth for what was read."""
    used = measured(said, "anthropic", PATH)
    assert used.cost_usd == pytest.approx((50 * 3 + 1000 * 3.75 + 2000 * 6 + 10000 * 0.3 + 500 * 15) / 1e6)


@pytest.mark.parametrize(
    ("more", "right"),
    [
        ({}, 0.0085),
        ({"speed": "fast"}, 0.017),
        ({"speed": "standard", "inference_geo": "us"}, 0.0085 * 1.1),
        ({"inference_geo": "global"}, 0.0085),
        ({"inference_geo": "not_available"}, 0.0085),
        ({"inference_geo": "moon"}, None),
        ({"service_tier": "batch"}, 0.00425),
        ({"service_tier": "standard"}, 0.0085),
        ({"service_tier": "priority"}, None),
        ({"server_tool_use": {"web_search_requests": 3, "web_fetch_requests": 1}}, 0.0385),
        ({"server_tool_use": {"code_execution_requests": 2}}, None),
        ({"server_tool_use": {"code_execution_requests": 2, "web_search_requests": 1}}, 0.0185),
    ],
)
def test_what_was_answered(more: dict[str, Any], right: float | None) -> None:
    """Opus 4.8: 5 and 25 dollars a million, 10 and 50 in fast mode; searches ten dollars a thousand."""
    usage = {"input_tokens": 1000, "cache_read_input_tokens": 2000, "output_tokens": 100, **more}
    used = measured(message(usage, OPUS), "anthropic", PATH)
    assert used.cost_usd == (None if right is None else pytest.approx(right))


@pytest.mark.parametrize("stream", [False, True])
def test_compaction_and_advice(stream: bool) -> None:
    """Both stand in the iterations alone; an advisor costs what its model does."""
    parts = [
        {"type": "compaction", "input_tokens": 180_000, "output_tokens": 3500},
        {"type": "advisor_message", "model": OPUS, "input_tokens": 1000, "output_tokens": 200},
        {"type": "message", "input_tokens": 23_000, "output_tokens": 1000},
    ]
    usage = {
        "input_tokens": 23_000,
        "output_tokens": 1000,
        "iterations": parts,
        "server_tool_use": {"web_search_requests": 1},
    }
    said = streamed({"input_tokens": 23_000, "output_tokens": 1}, usage) if stream else message(usage)
    used = measured(said, "anthropic", PATH)
    assert counts(used) == (204_000, 0, 0, 4700)
    right = (180_000 * 3 + 3500 * 15 + 1000 * 5 + 200 * 25 + 23_000 * 3 + 1000 * 15) / 1e6 + 0.01
    assert used.cost_usd == pytest.approx(right)


def test_turns_of_a_tool_are_in_the_usage_already() -> None:
    parts = [{"type": "message", "input_tokens": 100, "output_tokens": 10}] * 2
    used = measured(message({"input_tokens": 200, "output_tokens": 20, "iterations": parts}), "anthropic", PATH)
    assert counts(used) == (200, 0, 0, 20)


def test_long_requests() -> None:
    """Sonnet 4.5 beyond 200,000 tokens: 6 and 22.50 dollars a million."""
    used = measured(message({"input_tokens": 200_001, "output_tokens": 1000}), "anthropic", PATH)
    assert used.cost_usd == pytest.approx((200_001 * 6 + 1000 * 22.5) / 1e6)


@pytest.mark.parametrize(
    ("tools", "right"),
    [
        ([{"type": "web_search_20250305", "name": "web_search", "max_uses": 5}], {"web_searches": 5}),
        ([{"type": "web_search_20250305", "name": "web_search"}], {"web_searches": anthropic.MAX_SEARCHES}),
        ([{"type": "web_fetch_20250910"}, {"type": "code_execution_20250825"}], {}),
        ([{"type": "code_execution_20250825"}], {"code_executions": 1}),
        ([{"name": "web_search_2", "input_schema": {}}], {}),
        ("none", {}),
    ],
)
def test_what_a_request_allows_at_most(tools: Any, right: dict[str, int]) -> None:
    assert anthropic.max_tool_calls(SONNET, {"tools": tools}) == right


def test_batches_are_told_later() -> None:
    assert anthropic.deferred_result_id({"type": "message_batch", "id": "msgbatch_1"}) == "msgbatch_1"
    assert anthropic.deferred_result_id({"type": "message", "id": "m"}) == ""
