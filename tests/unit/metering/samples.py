"""Answers as providers give them, each with what was used."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

JSON = b"application/json"
SSE = b"text/event-stream"


@dataclass(frozen=True)
class Sample:
    """One answer.

    @ivar used: input, cached, written, output, reasoning.
    """

    name: str
    provider: str
    path: bytes
    body: bytes
    used: tuple[int, int, int, int, int]
    model: str
    kind: bytes = JSON
    details: dict[str, int] = field(default_factory=dict)


def dumped(value: Any, **how: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, **how).encode()


def events(*told: Any, end: str = "\n", named: bool = False, done: bool = False) -> bytes:
    parts = []
    for each in told:
        name = f"event: {each['type']}{end}" if named else ""
        parts.append(f"{name}data: {json.dumps(each, ensure_ascii=False)}{end}{end}")
    return "".join(parts + ([f"data: [DONE]{end}{end}"] if done else [])).encode()


CHAT_USAGE = {
    "prompt_tokens": 100,
    "completion_tokens": 20,
    "total_tokens": 120,
    "prompt_tokens_details": {"cached_tokens": 10, "cache_write_tokens": 0, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 7, "audio_tokens": 0},
}
TEXT = 'Grüße, 世界 🌍 "usage": {"prompt_tokens": 999999}'


def chunk(**more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": TEXT}, "finish_reason": None}
    return {"id": "c", "object": "chat.completion.chunk", "model": "gpt-4o-2024-08-06", "choices": [choice], **more}


CLAUDE = "claude-sonnet-4-5-20250929"
STARTED = {
    "type": "message_start",
    "message": {
        "id": "m",
        "type": "message",
        "model": CLAUDE,
        "content": [],
        "usage": {
            "input_tokens": 10,
            "cache_creation_input_tokens": 100,
            "cache_read_input_tokens": 50,
            "output_tokens": 1,
        },
    },
}
DELTA = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": TEXT}}
ENDED = {
    "type": "message_delta",
    "delta": {"stop_reason": "end_turn"},
    "usage": {"output_tokens": 25, "input_tokens": None, "output_tokens_details": {"thinking_tokens": 5}},
}


def gemini(text: str, usage: dict[str, Any], **more: Any) -> dict[str, Any]:
    candidate = {"content": {"parts": [{"text": text}], "role": "model"}, **more}
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "gemini-2.5-flash"}


GEMINI = [
    gemini(TEXT, {"trafficType": "ON_DEMAND"}),
    gemini(TEXT, {"promptTokenCount": 40, "totalTokenCount": 40}),
    gemini(
        "",
        {
            "promptTokenCount": 40,
            "cachedContentTokenCount": 8,
            "candidatesTokenCount": 9,
            "thoughtsTokenCount": 11,
            "totalTokenCount": 60,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 40}],
        },
        finishReason="STOP",
    ),
]
GEMINI_USED = (40, 8, 0, 20, 11)
GEMINI_PATH = b"/v1beta/models/gemini-2.5-flash:streamGenerateContent"
RESPONSE = {
    "id": "r",
    "object": "response",
    "status": "completed",
    "model": "gpt-4.1-2025-04-14",
    "output": [{"content": [{"type": "output_text", "text": TEXT}]}],
    "usage": {
        "input_tokens": 30,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 3},
        "output_tokens": 12,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 42,
    },
}
MESSAGE = {
    **STARTED["message"],  # type: ignore[dict-item]
    "content": [{"type": "tool_use", "name": "f", "input": {"usage": {"input_tokens": 5_000_000}}}],
    "usage": {**STARTED["message"]["usage"], "output_tokens": 25, "server_tool_use": {"web_search_requests": 2}},  # type: ignore[index]
}

SAMPLES = [
    Sample(
        "chat",
        "openai",
        b"/v1/chat/completions",
        dumped({**chunk(), "usage": CHAT_USAGE}),
        (100, 10, 0, 20, 7),
        "gpt-4o-2024-08-06",
    ),
    Sample(
        "a long chat",
        "openai",
        b"/v1/chat/completions",
        dumped({"model": "gpt-4o", "choices": [{"message": {"content": TEXT * 400}}], "usage": CHAT_USAGE}, indent=2),
        (100, 10, 0, 20, 7),
        "gpt-4o",
    ),
    Sample(
        "a chat stream",
        "openai",
        b"/v1/chat/completions",
        events(chunk(usage=None), chunk(usage=None), {**chunk(), "choices": [], "usage": CHAT_USAGE}, done=True),
        (100, 10, 0, 20, 7),
        "gpt-4o-2024-08-06",
        SSE,
    ),
    Sample(
        "a chat stream with CR alone",
        "azure",
        b"/openai/deployments/d/chat/completions",
        events({**chunk(), "choices": []}, chunk(), {**chunk(), "choices": [], "usage": CHAT_USAGE}, end="\r"),
        (100, 10, 0, 20, 7),
        "gpt-4o-2024-08-06",
        SSE,
    ),
    Sample(
        "embeddings",
        "openai",
        b"/v1/embeddings",
        dumped(
            {
                "data": [{"embedding": [0.25] * 3000}],
                "model": "text-embedding-3-small",
                "usage": {"prompt_tokens": 8, "total_tokens": 8},
            }
        ),
        (8, 0, 0, 0, 0),
        "text-embedding-3-small",
    ),
    Sample(
        "images",
        "openai",
        b"/v1/images/generations",
        dumped(
            {
                "data": [{"b64_json": "A" * 20000}],
                "usage": {
                    "input_tokens": 15,
                    "input_tokens_details": {"text_tokens": 10, "image_tokens": 5},
                    "output_tokens": 272,
                    "total_tokens": 287,
                },
            }
        ),
        (15, 0, 0, 272, 0),
        "",
        details={"input_text_tokens": 10, "input_image_tokens": 5},
    ),
    Sample(
        "a transcription",
        "openai",
        b"/v1/audio/transcriptions",
        dumped(
            {
                "text": TEXT,
                "usage": {
                    "type": "tokens",
                    "input_tokens": 14,
                    "input_token_details": {"text_tokens": 4, "audio_tokens": 10},
                    "output_tokens": 45,
                    "total_tokens": 59,
                },
            }
        ),
        (14, 0, 0, 45, 0),
        "",
        details={"input_text_tokens": 4, "input_audio_tokens": 10},
    ),
    Sample(
        "a transcription by the second",
        "openai",
        b"/v1/audio/transcriptions",
        dumped({"text": TEXT, "usage": {"type": "duration", "seconds": 30}}),
        (0, 0, 0, 0, 0),
        "",
        details={"audio_seconds": 30},
    ),
    Sample("a response", "openai", b"/v1/responses", dumped(RESPONSE), (30, 4, 3, 12, 2), "gpt-4.1-2025-04-14"),
    Sample(
        "a response stream",
        "openai",
        b"/v1/responses",
        events(
            {"type": "response.created", "response": {**RESPONSE, "status": "in_progress", "usage": None}},
            {"type": "response.output_text.delta", "delta": TEXT},
            {"type": "response.completed", "response": RESPONSE},
            named=True,
        ),
        (30, 4, 3, 12, 2),
        "gpt-4.1-2025-04-14",
        SSE,
    ),
    Sample(
        "a message whose tool is given something called usage",
        "anthropic",
        b"/v1/messages",
        dumped(MESSAGE),
        (160, 50, 100, 25, 0),
        CLAUDE,
        details={"web_searches": 2},
    ),
    Sample(
        "a message stream",
        "anthropic",
        b"/v1/messages",
        b": comment\n\n" + events(STARTED, DELTA, {"type": "ping"}, DELTA, ENDED, {"type": "message_stop"}, named=True),
        (160, 50, 100, 25, 5),
        CLAUDE,
        SSE,
    ),
    Sample(
        "generateContent",
        "google",
        GEMINI_PATH,
        dumped(GEMINI[2]),
        GEMINI_USED,
        "gemini-2.5-flash",
        details={"input_text_tokens": 40},
    ),
    Sample(
        "streamGenerateContent as events with CRLF",
        "google",
        GEMINI_PATH,
        events(*GEMINI, end="\r\n"),
        GEMINI_USED,
        "gemini-2.5-flash",
        SSE,
        {"input_text_tokens": 40},
    ),
    Sample(
        "streamGenerateContent as an array",
        "google",
        GEMINI_PATH,
        b"[" + b",\r\n".join(dumped(each, indent=1) for each in GEMINI) + b"\n]",
        GEMINI_USED,
        "gemini-2.5-flash",
        JSON,
        {"input_text_tokens": 40},
    ),
    Sample(
        "interactions",
        "google",
        b"/v1beta/interactions",
        events(
            {"event_type": "content.delta", "delta": {"text": TEXT}},
            {
                "event_type": "interaction.completed",
                "interaction": {
                    "model": "gemini-2.5-pro",
                    "usage": {
                        "total_input_tokens": 20,
                        "total_output_tokens": 6,
                        "total_thought_tokens": 4,
                        "total_cached_tokens": 2,
                        "total_tool_use_tokens": 3,
                    },
                },
            },
            done=True,
        ),
        (23, 2, 0, 10, 4),
        "gemini-2.5-pro",
        SSE,
    ),
    Sample(
        "a stream of Mistral's",
        "mistral",
        b"/v1/chat/completions",
        events(
            {**chunk(), "model": "mistral-small-latest"},
            {
                "model": "mistral-small-latest",
                "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14},
            },
            done=True,
        ),
        (11, 0, 0, 3, 0),
        "mistral-small-latest",
        SSE,
    ),
    Sample(
        "converse",
        "aws",
        b"/model/anthropic.claude-sonnet-4-5-20250929-v1:0/converse",
        dumped(
            {
                "output": {"message": {"content": [{"text": TEXT}]}},
                "usage": {"inputTokens": 9, "outputTokens": 5, "cacheReadInputTokens": 2, "totalTokens": 16},
            }
        ),
        (11, 2, 0, 5, 0),
        "",
    ),
]
