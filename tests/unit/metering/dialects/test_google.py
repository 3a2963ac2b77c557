"""What Gemini's answers used and cost. Right values by its price page, November 2026."""

from __future__ import annotations

from typing import Any

import pytest

from llmproxy.metering.dialects import google
from tests.unit.metering.dialects.answers import counts, measured

PATH = "/v1beta/models/gemini-2.5-pro:generateContent"
PRO = (1000 * 1.25 + 100 * 10) / 1e6


def answer(model: str = "gemini-2.5-pro", use: dict[str, Any] | None = None, **candidate: Any) -> dict[str, Any]:
    return {
        "candidates": [{"content": {"parts": [{"text": "x"}]}, "finishReason": "STOP", **candidate}],
        "usageMetadata": {
            "promptTokenCount": 1000,
            "candidatesTokenCount": 100,
            "totalTokenCount": 1100,
            **(use or {}),
        },
        "modelVersion": model,
    }


@pytest.mark.parametrize(
    ("use", "right"),
    [
        ({}, PRO),
        ({"serviceTier": "standard"}, PRO),
        ({"serviceTier": "STANDARD"}, PRO),
        ({"serviceTier": "flex"}, PRO / 2),
        ({"serviceTier": "priority"}, None),
        ({"trafficType": "ON_DEMAND"}, PRO),
        ({"trafficType": "ON_DEMAND_FLEX"}, PRO / 2),
        ({"trafficType": "PROVISIONED_THROUGHPUT"}, None),
    ],
)
def test_the_tier_that_answered(use: dict[str, str], right: float | None) -> None:
    """Flex is half; how much more priority is, the list does not say for this model."""
    used = measured(answer(use=use), "google", PATH)
    assert used.cost_usd == (None if right is None else pytest.approx(right))


def test_the_tier_in_the_head() -> None:
    used = measured(answer(), "google", PATH, lines=[b"x-gemini-service-tier: flex"])
    assert used.cost_usd == pytest.approx(PRO / 2)


@pytest.mark.parametrize(
    ("model", "queries", "beside"),
    [
        ("gemini-2.5-pro", ["a", "b"], 0.035),
        ("gemini-3-pro-preview", ["a", "b"], 0.028),
        ("gemini-3-pro-preview", [], 0.0),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_searches(model: str, queries: list[str], beside: float, stream: bool) -> None:
    """35 dollars for a thousand prompts before Gemini 3, then 14 for a thousand queries."""
    plain = measured(answer(model), "google", PATH).cost_usd
    said = answer(model, groundingMetadata={"webSearchQueries": queries})
    more = [answer(model)] * 9  # as many as push the searches out of what is kept
    used = measured([said, *more] if stream else said, "google", PATH)
    assert plain is not None
    assert used.cost_usd == pytest.approx(plain + beside)


def test_maps_have_no_price_here() -> None:
    said = answer(groundingMetadata={"groundingChunks": [{"maps": {"uri": "https://x.example"}}]})
    assert measured(said, "google", PATH).cost_usd is None


def test_thoughts_tools_and_sound() -> None:
    """Gemini 2.5 Flash: 0.30 for text and 1.00 for sound, 2.50 for output a million."""
    use = {
        "thoughtsTokenCount": 50,
        "toolUsePromptTokenCount": 10,
        "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 600}, {"modality": "TEXT", "tokenCount": 400}],
    }
    used = measured(answer("gemini-2.5-flash", use), "google", PATH)
    assert (counts(used)[::3], used.reasoning_tokens) == ((1010, 150), 50)
    assert used.cost_usd == pytest.approx((410 * 0.3 + 600 * 1.0 + 150 * 2.5) / 1e6)


def test_a_stream_as_an_array() -> None:
    """Without C{alt=sse}: the last counts hold, zeros erase nothing."""
    parts = [answer(use={"candidatesTokenCount": 1}), answer(), answer(use={"promptTokenCount": 0})]
    assert counts(measured(b"[" + b",".join(map(_dumped, parts)) + b"]", "google", PATH))[::3] == (1000, 100)


def test_what_a_request_allows_at_most() -> None:
    assert google.max_tool_calls("gemini-3-pro", {"tools": [{"googleSearch": {}}]}) == {
        "web_searches": google.MAX_SEARCHES
    }
    assert google.max_tool_calls("gemini-2.5-pro", {"tools": [{"google_search": {}}]}) == {"web_searches": 1}
    assert google.max_tool_calls("gemini-2.5-pro", {"tools": [{"functionDeclarations": []}]}) == {}


def _dumped(value: Any) -> bytes:
    import json

    return json.dumps(value).encode()
