"""Ollama's own API, Cohere's, and providers that say what they charged."""

from __future__ import annotations

from typing import Any

import pytest

from llmproxy.metering.estimating import PromptEstimate
from llmproxy.metering.prices import OwnPrice
from tests.unit.metering.dialects.answers import counts, measured

OWN = [OwnPrice("*", "*", 1.0, 10.0)]
DONE = {"model": "gemma3", "done": True, "done_reason": "stop", "prompt_eval_count": 11, "eval_count": 18}


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
@pytest.mark.parametrize("piece", [0, 1, 7])
@pytest.mark.parametrize("provider", ["", "ollama", "openai"])
def test_ollama(path: str, piece: int, provider: str) -> None:
    """One object a line; the last one has the counts, where it is done."""
    part = {"model": "gemma3", "message": {"role": "assistant", "content": "Hi"}, "done": False}
    kind = "application/x-ndjson"
    for said, how in ((DONE, ""), ([part, part, DONE], kind)):
        used = measured(said, provider, path, own=OWN, piece=piece, kind=how)
        assert (counts(used)[::3], used.basis, used.model) == ((11, 18), "exact", "gemma3")
        assert used.cost_usd == pytest.approx((11 + 180) / 1e6)
    cut = measured([part, part], provider, path, own=OWN, piece=piece, kind=kind)
    assert cut.basis == "estimated"


def test_ollama_says_that_it_failed() -> None:
    from llmproxy.metering.meter import Meter, dialect
    from tests.unit.metering.dialects.answers import NOW, PRICES

    meter = Meter(dialect("api", "", PRICES, b"/api/chat"), [b"Content-Type: application/x-ndjson"])
    meter.feed(b'{"model":"m","done":false}\n{"error":"llama runner has gone"}\n')
    meter.measured(asked="m", given=lambda: PromptEstimate(3, 10), complete=True, at=NOW)
    assert meter.error


@pytest.mark.parametrize(
    "said",
    [
        {
            "message": {},
            "usage": {"billed_units": {"input_tokens": 7, "output_tokens": 3}, "tokens": {"input_tokens": 90}},
        },
        {"text": "x", "meta": {"billed_units": {"input_tokens": 7, "output_tokens": 3}}},
        [{"type": "message-end", "delta": {"usage": {"billed_units": {"input_tokens": 7, "output_tokens": 3}}}}],
    ],
)
def test_cohere(said: Any) -> None:
    """What is billed, not what the model saw."""
    assert counts(measured(said, "cohere", "/v2/chat"))[::3] == (7, 3)


@pytest.mark.parametrize(
    ("provider", "told", "right"),
    [
        ("x-ai", {"cost_in_usd_ticks": 37_756_000}, 0.0037756),
        ("openrouter", {"cost": 0.95, "cost_details": {"upstream_inference_cost": 19}}, 0.95),
        ("openrouter", {"cost": 0.05, "is_byok": True, "cost_details": {"upstream_inference_cost": 1.0}}, 1.05),
        ("perplexity", {"cost": {"total_cost": 0.006}}, 0.006),
    ],
)
def test_what_a_provider_says_it_charged(provider: str, told: dict[str, Any], right: float) -> None:
    """It goes before any list, and after what the operator says."""
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, **told}
    said = {"model": "any", "choices": [], "usage": usage}
    assert measured(said, provider).cost_usd == pytest.approx(right)
    assert measured(said, provider, own=OWN).cost_usd == pytest.approx(60 / 1e6)
