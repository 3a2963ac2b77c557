"""Anthropic: messages, as JSON and as named events, and counting tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llmproxy.simulator.dialect import Call, Refused, Reply, bearer, event, stream, whole
from llmproxy.simulator.text import count

NAME = "anthropic"
MODELS = ("claude-sonnet-4-5", "claude-haiku-4-5", "claude-opus-4-1")
_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def credential(call: Call) -> str | None:
    return call.fields.get("x-api-key") or bearer(call)


def reply(call: Call) -> Reply:
    if "anthropic-version" not in call.fields:
        raise Refused(400, "anthropic-version: header is required")
    match call.method, call.path:
        case "POST", "messages":
            return messages(call)
        case "POST", "messages/count_tokens":
            call.need("model", "messages")
            return whole({"input_tokens": _given(call)})
        case "GET" | "HEAD", "models":
            page = {"has_more": False, "first_id": MODELS[0], "last_id": MODELS[-1]}
            return whole({"data": [_model(name) for name in MODELS], **page})
        case "GET" | "HEAD", path if path.startswith("models/") and path.removeprefix("models/") in MODELS:
            return whole(_model(path.removeprefix("models/")))
    raise Refused(404, "Not found")


def messages(call: Call) -> Reply:
    call.need("model", "messages", "max_tokens")
    if call.body.get("stream"):
        return stream(_events(call))
    content = [{"type": "text", "text": str(call.text)}]
    return whole(_message(call, content, "end_turn", call.text.tokens))


def error(status: int, message: str, code: str | None, request_id: str) -> dict[str, Any]:
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
    details = {"error_code": code} if code else None
    return {
        "type": "error",
        "error": {"type": kind, "message": message, "details": details},
        "request_id": request_id,
    }


def error_event() -> bytes:
    return event({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, "error")


def lines(request_id: str) -> list[bytes]:
    kinds = (b"requests", b"tokens", b"input-tokens", b"output-tokens")
    return [
        b"request-id: " + request_id.encode(),
        b"anthropic-organization-id: 00000000-0000-4000-8000-000000000000",
        *(b"anthropic-ratelimit-" + kind + b"-limit: 100000" for kind in kinds),
        *(b"anthropic-ratelimit-" + kind + b"-remaining: 99000" for kind in kinds),
        *(b"anthropic-ratelimit-" + kind + b"-reset: 2026-01-01T00:00:01Z" for kind in kinds),
    ]


def _given(call: Call) -> int:
    return count(call.body["messages"]) + count(call.body.get("system") or "")


def _message(call: Call, content: list[Any], stop: str | None, made: int) -> dict[str, Any]:
    return {
        "id": f"msg_{call.digest[:24]}",
        "type": "message",
        "role": "assistant",
        "model": call.body["model"],
        "content": content,
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": {
            "input_tokens": _given(call),
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
            "output_tokens": made,
            "service_tier": "standard",
        },
    }


def _events(call: Call) -> Iterator[bytes]:
    def named(name: str, **fields: Any) -> bytes:
        return event({"type": name, **fields}, name)

    yield named("message_start", message=_message(call, [], None, 1))
    yield named("content_block_start", index=0, content_block={"type": "text", "text": ""})
    yield named("ping")
    for piece in call.text:
        yield named("content_block_delta", index=0, delta={"type": "text_delta", "text": piece})
    yield named("content_block_stop", index=0)
    ended = {"stop_reason": "end_turn", "stop_sequence": None}
    yield named("message_delta", delta=ended, usage={"output_tokens": call.text.tokens})
    yield named("message_stop")


def _model(name: str) -> dict[str, Any]:
    shown = name.replace("-", " ").title()
    return {"type": "model", "id": name, "display_name": shown, "created_at": "2025-09-29T00:00:00Z"}
