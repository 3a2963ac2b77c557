"""A response that is too long to be kept tells what a short one does."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest

from llmproxy.metering.body_readers import MAX_BODY_BYTES, MAX_CALLS
from llmproxy.metering.estimating import PromptEstimate
from llmproxy.metering.json_scanner import MAX_LISTED_OBJECTS
from llmproxy.metering.meter import Meter, dialect
from llmproxy.metering.prices import Prices
from llmproxy.metering.sse import MAX_EVENT_BYTES
from llmproxy.model import Usage
from tests.unit.metering.samples import CHAT_USAGE, JSON, MESSAGE, RESPONSE, SSE, STARTED

PRICES = Prices()
NOW = 1_794_992_800.0
LONG = "A" * (MAX_BODY_BYTES + 5000)
LONGER = "A" * (MAX_EVENT_BYTES + 5000)
SEARCH = {"type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "x"}}


def response(*items: dict[str, Any], **more: Any) -> dict[str, Any]:
    numbered = [{"id": f"i{number}", **item} for number, item in enumerate(items)]
    return {**RESPONSE, "model": "gpt-5-2025-08-07", "output": numbered, **more}


def grounded(model: str, *queries: str, **more: Any) -> dict[str, Any]:
    grounding = {"searchEntryPoint": {"renderedContent": "<p>"}, "webSearchQueries": [*queries], **more}
    return {
        "candidates": [{"content": {"parts": []}, "finishReason": "STOP", "groundingMetadata": grounding}],
        "usageMetadata": {"promptTokenCount": 100, "candidatesTokenCount": 1120, "totalTokenCount": 1220},
        "modelVersion": model,
    }


OPENED = {**SEARCH, "action": {"type": "open_page", "url": "https://e.example"}}
FAILED = {**SEARCH, "status": "failed"}
TEXT = {"type": "message", "content": [{"type": "output_text", "text": '"type": "web_search_call"'}]}
FUNCTION = {"type": "function_call", "arguments": json.dumps(SEARCH)}
SOURCES = {**SEARCH, "action": {**SEARCH["action"], "sources": [{"type": "url", "url": "x" * 100}] * 900}}  # type: ignore[dict-item]
PREVIEW = [{"type": "function", "parameters": {"x": "y" * 70_000}}, {"type": "web_search_preview_2025_03_11"}]
DRAWN = {"image_gen": {"total_tokens": 9, "input_tokens": 4, "output_tokens": 5, "input_tokens_details": {}}}
CHATS = {"model": "gpt-4o-search-preview-2025-03-11", "choices": [{"message": {}}], "usage": CHAT_USAGE}
GEMINI_ARGS = {
    "functionCall": {"args": {"groundingMetadata": {"webSearchQueries": ["no"]}, "webSearchQueries": ["no"]}}
}

RESPONSES = [
    ("openai", "/v1/responses", response(SEARCH, *[OPENED] * 5, FAILED, TEXT, FUNCTION), {"web_searches": 1}),
    ("openai", "/v1/responses", response(SEARCH, SOURCES, tools=PREVIEW), {"web_search_previews": 2}),
    ("openai", "/v1/responses", response(SEARCH, {**SEARCH, "id": "i0"}), {"web_searches": 1}),
    ("openai", "/v1/responses", response(*[SEARCH] * (MAX_LISTED_OBJECTS - 1)), {"web_searches": 299}),
    ("openai", "/v1/responses", response(*[TEXT] * 900, SEARCH), {"web_searches": 1}),
    ("openai", "/v1/responses", response(*[FUNCTION] * 1000, SEARCH), {"web_searches": 1}),
    (
        "openai",
        "/v1/responses",
        response({"type": "file_search_call", "results": [TEXT] * 30}),
        {"storage_searches": 1},
    ),
    ("openai", "/v1/responses", response(tool_usage={"web_search": {"num_requests": 3}}), {"web_searches": 3}),
    ("openai", "/v1/responses", response(tools=[{"type": "image_generation", "model": "m"}], tool_usage=DRAWN), {}),
    ("openai", "/v1/chat/completions", CHATS, {"web_search_previews": 1}),
    ("openai", "/v1/chat/completions", {"choices": [{"usage": CHAT_USAGE}], "model": "gpt-4o"}, {}),
    (
        "google",
        "/v1beta/models/x:generateContent",
        grounded("gemini-3-pro-image-preview", "a", "b"),
        {"web_searches": 2},
    ),
    ("google", "/v1beta/models/x:generateContent", grounded("gemini-2.5-pro", "a", "b"), {"web_searches": 1}),
    (
        "google",
        "/v1beta/models/x:generateContent",
        {**grounded("gemini-2.5-pro"), "candidates": [{"content": {"parts": [GEMINI_ARGS]}}]},
        {},
    ),
    (
        "google",
        "/v1beta/models/x:generateContent",
        grounded("gemini-3-pro", groundingChunks=[{"web": {"uri": "u" * 300}}] * 400 + [{"maps": {"title": "t"}}]),
        {"maps_searches": 1},
    ),
    ("anthropic", "/v1/messages", MESSAGE, {"web_searches": 2}),
    ("", "/v2/chat", {"meta": {"billed_units": {"input_tokens": 3, "output_tokens": 5}}}, {}),
    ("openai", "/v1/chat/completions", {"error": {"code": "model_overloaded"}, "usage": CHAT_USAGE}, {}),
]


def measured(provider: str, path: str, body: bytes, kind: bytes = JSON, piece: int = 16_384) -> tuple[Usage, str]:
    meter = Meter(dialect("api", provider, PRICES, path.encode()), [b"Content-Type: " + kind])
    for start, end in pairwise([*range(0, len(body), piece), len(body)]):
        meter.feed(body[start:end])
        while meter.behind:
            meter.work()
    usage = meter.measured(asked="", given=lambda: PromptEstimate(9, 9), complete=True, at=NOW)
    return usage, meter.error


def told(usage: Usage, error: str) -> tuple[Any, ...]:
    """All but the figures of an estimate, which hang on the size."""
    if usage.basis == "estimated":
        return usage.basis, error, usage.model
    return (*usage, error)


def padded(body: dict[str, Any], text: str, place: str) -> bytes:
    return json.dumps({"padding": text, **body} if place == "first" else {**body, "padding": text}).encode()


@pytest.mark.parametrize(("provider", "path", "body", "units"), RESPONSES)
def test_a_body(provider: str, path: str, body: dict[str, Any], units: dict[str, int]) -> None:
    """The same tokens, calls, cost and error, wherever what makes it long stands, and in any pieces."""
    short = measured(provider, path, json.dumps(body).encode())
    if not short[1]:
        assert short[0].basis == "exact"
        calls = {unit: count for unit, count in short[0].details.items() if "search" in unit}
        assert calls == units
    for place in ("first", "last"):
        text = padded(body, LONG, place)
        for piece in (16_384, len(text), 1_000):
            assert told(*measured(provider, path, text, piece=piece)) == told(*short)


@pytest.mark.parametrize(("provider", "path", "body", "units"), RESPONSES)
def test_an_event(provider: str, path: str, body: dict[str, Any], units: dict[str, int]) -> None:
    """As the last one of a stream."""
    path = path.replace("generate", "streamGenerate")
    if path == "/v1/responses":
        body = {"type": "response.completed", "response": body}
    short = measured(provider, path, b"data: " + json.dumps(body).encode() + b"\n\n", SSE)
    for place in ("first", "last"):
        text = b"event: message\ndata: " + padded(body, LONGER, place) + b"\n\n"
        found = measured(provider, path, text, SSE)
        assert (found[0].cost_usd, found[0].basis == "exact") == (short[0].cost_usd, short[0].basis == "exact")
        assert (found[0][:5], found[0].details) == (short[0][:5], short[0].details) or short[1]


def test_an_item_that_is_long() -> None:
    """A call whose event is long is counted, and one in the words of a text is not."""
    outputs = [{"type": "image", "url": "data:" + LONGER}]
    called = {"type": "code_interpreter_call", "id": "c1", "status": "completed", "outputs": outputs}
    last = {"type": "response.completed", "response": {**RESPONSE, "output": None}}
    for item, details in ((called, {"code_executions": 1}), ({**TEXT, "x": LONGER}, {})):
        done = {"type": "response.output_item.done", "output_index": 0, "item": item}
        body = b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in (done, last))
        usage, _ = measured("openai", "/v1/responses", body, SSE)
        assert (usage.basis, usage.details) == ("exact", details)


def test_what_is_not_read_is_not_exact() -> None:
    """More calls than are kept, and events that are too dense to be read, where they may have held calls."""
    calls = response(*[SEARCH] * (MAX_LISTED_OBJECTS + 1))
    usage, _ = measured("openai", "/v1/responses", padded(calls, LONG, "last"))
    assert (usage.basis, usage.input_tokens, usage.details["web_searches"]) == ("estimated", 30, MAX_LISTED_OBJECTS)
    event = b"data: " + padded({"type": "response.completed", "response": calls}, LONGER, "last") + b"\n\n"
    usage, _ = measured("openai", "/v1/responses", event, SSE)
    assert (usage.basis, usage.input_tokens, usage.details["web_searches"]) == ("estimated", 30, MAX_LISTED_OBJECTS)
    last = b"data: " + json.dumps({"type": "response.completed", "response": RESPONSE}).encode() + b"\n\n"
    for count, basis in ((MAX_CALLS, "exact"), (MAX_CALLS + 1, "estimated")):
        done = [{"type": "response.output_item.done", "item": {**SEARCH, "id": f"i{n}"}} for n in range(count)]
        body = b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in done)
        usage, _ = measured("openai", "/v1/responses", body + last, SSE)
        assert (usage.basis, usage.details["web_searches"]) == (basis, MAX_CALLS)
    dense = b'data: {"type":"x",' + b'"":"",' * 500_000 + b'"a":0}\n\n'
    assert measured("openai", "/v1/responses", dense + last, SSE)[0].basis == "estimated"
    ended = {"type": "message_delta", "usage": {"output_tokens": 25}}
    begun, done = (b"data: " + json.dumps(each).encode() + b"\n\n" for each in (STARTED, ended))
    assert measured("anthropic", "/v1/messages", begun + dense + done, SSE)[0].basis == "exact"  # which counts itself
