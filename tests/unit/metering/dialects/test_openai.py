"""What OpenAI's answers, and those of who speaks like it, used and cost. Values by the price page, November 2026."""

from __future__ import annotations

from typing import Any

import pytest

from llmproxy.metering.dialects import openai
from llmproxy.metering.prices import OwnPrice
from tests.unit.metering.dialects.answers import counts, measured

OWN = [OwnPrice("*", "*", 1.0, 10.0)]
RESPONSES = "/v1/responses"
USE = {
    "input_tokens": 1000,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens": 100,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 1100,
}


def chat(usage: Any, model: str = "gpt-4o-2024-08-06", **more: Any) -> dict[str, Any]:
    return {
        "model": model,
        "choices": [{"index": 0, "message": {"content": "x"}, "finish_reason": "stop"}],
        "usage": usage,
        **more,
    }


def response(*items: dict[str, Any], model: str = "gpt-4.1-2025-04-14", **more: Any) -> dict[str, Any]:
    return {"object": "response", "model": model, "status": "completed", "output": list(items), "usage": USE, **more}


@pytest.mark.parametrize(
    ("usage", "right"),
    [
        ({"prompt_tokens": 10120, "completion_tokens": 1499, "total_tokens": 14428}, (10120, 4308)),
        (
            {
                "prompt_tokens": 21,
                "completion_tokens": 0,
                "total_tokens": 81,
                "completion_tokens_details": {"reasoning_tokens": 60},
            },
            (21, 60),
        ),
        (
            {
                "prompt_tokens": 500,
                "completion_tokens": 500,
                "total_tokens": 1000,
                "completion_tokens_details": {"reasoning_tokens": 200},
            },
            (500, 500),
        ),
        (
            {"prompt_tokens": 9, "completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 40}},
            (9, 45),
        ),
    ],
    ids=["beside", "alone", "within", "without a total"],
)
@pytest.mark.parametrize("provider", ["", "openai", "x-ai", "google"])
def test_reasoning_is_output_wherever_it_is_told(provider: str, usage: dict[str, Any], right: tuple[int, int]) -> None:
    """The total tells; where it is prompt and completion, nothing is added."""
    used = measured(chat(usage, "thinker"), provider, own=OWN)
    assert counts(used)[::3] == right
    assert used.cost_usd == pytest.approx((right[0] + 10 * right[1]) / 1e6)


@pytest.mark.parametrize("name", ["cached_tokens", "prompt_cache_hit_tokens"])
def test_what_was_cached_in_the_words_of_others(name: str) -> None:
    """Moonshot's and DeepSeek's."""
    usage = {"prompt_tokens": 100, "completion_tokens": 5, "total_tokens": 105, name: 60}
    assert counts(measured(chat(usage), "")) == (100, 60, 0, 5)


def test_the_usage_of_a_choice() -> None:
    """Moonshot, in the last event; Groq in an object of its own name."""
    usage = {"prompt_tokens": 1900, "completion_tokens": 130, "total_tokens": 2030}
    part = {"model": "m", "choices": [{"index": 0, "delta": {"content": "Hello"}, "finish_reason": None}]}
    end = {"model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": usage}]}
    groq = {"model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "x_groq": {"usage": usage}}
    for last in (end, groq):
        used = measured([part, part, last], "", own=OWN)
        assert (counts(used)[::3], used.basis, used.cost_usd) == ((1900, 130), "exact", pytest.approx(0.0032))


@pytest.mark.parametrize(
    ("model", "right"),
    [
        ("gpt-audio", (200 * 2.5 + 800 * 32 + 100 * 10 + 400 * 64) / 1e6),
        ("gpt-4o-audio-preview", (200 * 2.5 + 800 * 40 + 100 * 10 + 400 * 80) / 1e6),
        ("gpt-4o", None),
    ],
)
def test_sound_costs_its_own_price_or_an_unknown_one(model: str, right: float | None) -> None:
    usage = {
        "prompt_tokens": 1000,
        "completion_tokens": 500,
        "total_tokens": 1500,
        "prompt_tokens_details": {"audio_tokens": 800},
        "completion_tokens_details": {"audio_tokens": 400},
    }
    used = measured(chat(usage, model))
    assert counts(used)[::3] == (1000, 500)
    assert used.cost_usd == (None if right is None else pytest.approx(right))


@pytest.mark.parametrize(
    ("tier", "right"), [("default", 0.0042), ("flex", 0.0021), ("priority", 0.00735), ("scale", None), ("", 0.0042)]
)
def test_the_tier_that_answered(tier: str, right: float | None) -> None:
    """o3 at 2 and 8 dollars a million, flex 1 and 4, priority 3.5 and 14; what is prepaid has no price."""
    usage = {"prompt_tokens": 1700, "completion_tokens": 100, "total_tokens": 1800}
    used = measured(chat(usage, "o3-2025-04-16", service_tier=tier or None))
    assert used.cost_usd == (None if right is None else pytest.approx(right))


def searched(number: int, **action: str) -> dict[str, Any]:
    return {
        "type": "web_search_call",
        "id": f"ws_{number}",
        "status": "completed",
        "action": {"type": "search", **action},
    }


TOKENS = (1000 * 2 + 100 * 8) / 1e6


@pytest.mark.parametrize(
    ("said", "beside"),
    [
        (response(searched(1), searched(2)), 0.02),
        (response(searched(1), searched(2, type="open_page")), 0.01),
        (response(searched(1), tools=[{"type": "web_search_preview"}]), 0.025),
        (response(searched(1), searched(2), tool_usage={"web_search": {"num_requests": 1}}), 0.01),
        (response({"type": "file_search_call", "id": "f", "status": "completed"}), 0.0025),
        (response({"type": "function_call", "id": "f", "name": "web_search_call"}), 0.0),
        (response(tools=[{"type": "web_search"}]), 0.0),
        (response({"type": "code_interpreter_call", "id": "c", "status": "completed"}), None),
    ],
    ids=["searches", "a page that was opened", "preview", "counted", "files", "a function", "offered", "a container"],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_calls_that_are_billed_by_themselves(said: dict[str, Any], beside: float | None, streamed: bool) -> None:
    """Ten dollars a thousand searches, 25 with the preview tool and models that do not reason, 2.50 in files."""
    items = [{"type": "response.output_item.done", "item": item} for item in said["output"]]
    used = measured([*items, {"type": "response.completed", "response": said}] if streamed else said, path=RESPONSES)
    assert counts(used)[::3] == (1000, 100)
    assert used.cost_usd == (None if beside is None else pytest.approx(TOKENS + beside))


@pytest.mark.parametrize("streamed", [False, True])
def test_a_response_of_three_megabytes(streamed: bool) -> None:
    """Its usage, tier, model and searches are read all the same."""
    drawn = {"type": "image_generation_call", "result": "A" * 3_000_000}
    said = response(searched(1), drawn, service_tier="priority", text={"format": {"type": "text"}}, user=None)
    items = [{"type": "response.output_item.done", "item": searched(1)}]
    events = [*items, {"type": "response.completed", "response": said}]
    used = measured(events if streamed else said, path=RESPONSES, piece=50_000)
    assert (used.model, counts(used)[::3]) == ("gpt-4.1-2025-04-14", (1000, 100))
    assert used.cost_usd == pytest.approx((1000 * 3.5 + 100 * 14) / 1e6 + 0.01)


def test_pictures_that_a_response_had_drawn() -> None:
    """Their tokens are another model's: C{tool_usage.image_gen}, beside the usage. gpt-image-1: 5 and 40 dollars."""
    drawn = {
        "input_tokens": 100,
        "input_tokens_details": {"text_tokens": 100, "image_tokens": 0},
        "output_tokens": 4160,
        "total_tokens": 4260,
    }
    said = response(tool_usage={"image_gen": drawn}, tools=[{"type": "image_generation", "model": "gpt-image-1"}])
    assert measured(said, path=RESPONSES).cost_usd == pytest.approx(TOKENS + (100 * 5 + 4160 * 40) / 1e6)
    assert measured({**said, "tools": []}, path=RESPONSES).cost_usd is None


@pytest.mark.parametrize(
    "said",
    [
        {"text": "hello", "usage": {"type": "duration", "seconds": 600}},
        {"task": "transcribe", "language": "english", "duration": 600.0, "text": "hello", "segments": []},
        {"task": "transcribe", "language": "english", "duration": "600.0", "text": "hello"},
    ],
)
def test_sound_that_was_written_down(said: dict[str, Any]) -> None:
    """whisper-1: 0.006 dollars a minute."""
    assert measured(said, path="/v1/audio/transcriptions", asked="whisper-1").cost_usd == pytest.approx(0.06)


def test_what_is_told_later() -> None:
    """Responses in the background and batches: the id by which they can be fetched."""
    waits = {"id": "resp_1", "object": "response", "background": True, "status": "queued"}
    assert openai.deferred_result_id(waits) == "resp_1"
    assert openai.deferred_result_id({"type": "response.created", "response": waits}) == "resp_1"
    assert openai.deferred_result_id({"id": "batch_1", "object": "batch", "status": "validating"}) == "batch_1"
    for other in ({"status": "completed"}, {"background": False}, {"id": ["resp_1"]}, {"object": "video"}):
        assert openai.deferred_result_id({**waits, **other}) == ""
