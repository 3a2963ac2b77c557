"""Anthropic: messages, as JSON and as named events, counting tokens, and batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llmproxy.simulator.billing import bill, offered
from llmproxy.simulator.dialect import Call, Refused, Reply, bearer, event, stream, whole
from llmproxy.simulator.formats import batches
from llmproxy.simulator.text import count
from llmproxy.simulator.use import Use

NAME = "anthropic"
MODELS = ("claude-sonnet-4-5", "claude-haiku-4-5", "claude-opus-4-1", "claude-opus-4-8")
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
        case "POST", "messages/batches":
            return batches.anthropic(call)
        case "GET", path if path.startswith("messages/batches/"):
            return batches.anthropic(call)
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
    use = call.use(_given(call), call.text.tokens)
    speed, region = answered_speed(call), str(call.body.get("inference_geo") or "")
    tier = "fast" if speed == "fast" else "standard"
    charge = bill("anthropic", str(call.body["model"]), use, tier, region if region == "us" else "")
    told = usage(use, speed, region or "not_available")
    if call.body.get("stream"):
        return stream(_events(call, told)).charged(charge)
    content = [{"type": "text", "text": str(call.text)}]
    return whole(_message(call, content, "end_turn", told)).charged(charge)


def answered_speed(call: Call) -> str:
    """Fast where that was asked for and is sold, unless it is steered otherwise."""
    asked = str(call.body.get("speed") or "standard")
    return call.tier or (asked if offered("anthropic", str(call.body["model"]), asked) else "standard")


def usage(use: Use, speed: str = "standard", region: str = "not_available") -> dict[str, Any]:
    """The usage object; where a conversation was compacted first, that is in C{iterations} alone.

    Anthropic's API reference: Messages, "Compaction" (sum over the iterations for what is billed), "Fast mode", "Data
    residency", "Web search tool".
    """
    told: dict[str, Any] = {
        "input_tokens": use.input + use.image,
        "cache_creation_input_tokens": use.written + use.written_1h,
        "cache_read_input_tokens": use.cached,
        "cache_creation": {"ephemeral_5m_input_tokens": use.written, "ephemeral_1h_input_tokens": use.written_1h},
        "output_tokens": use.completion,
        "service_tier": "standard",
        "inference_geo": region,
        "speed": speed,
    }
    if use.searches:
        told["server_tool_use"] = {"web_search_requests": use.searches, "web_fetch_requests": 0}
    if use.compaction_input:
        rest = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
        both = {"input_tokens": use.compaction_input, "output_tokens": use.compaction_output}
        same = {name: told[name] for name in ("input_tokens", "output_tokens", *rest)}
        told["iterations"] = [{"type": "compaction", **both, **rest}, {"type": "message", **same}]
    return told


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


def _message(call: Call, content: list[Any], stop: str | None, told: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": f"msg_{call.digest[:24]}",
        "type": "message",
        "role": "assistant",
        "model": call.body["model"],
        "content": content,
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": told,
    }


def _events(call: Call, told: dict[str, Any]) -> Iterator[bytes]:
    def named(name: str, **fields: Any) -> bytes:
        return event({"type": name, **fields}, name)

    late = ("server_tool_use", "iterations")
    first = {name: value for name, value in told.items() if name not in late} | {"output_tokens": 1}
    yield named("message_start", message=_message(call, [], None, first))
    yield named("content_block_start", index=0, content_block={"type": "text", "text": ""})
    yield named("ping")
    for piece in call.text:
        yield named("content_block_delta", index=0, delta={"type": "text_delta", "text": piece})
    yield named("content_block_stop", index=0)
    ended = {"stop_reason": "end_turn", "stop_sequence": None}
    yield named("message_delta", delta=ended, usage=_last(told, call.style))
    yield named("message_stop")


def _last(told: dict[str, Any], style: str) -> dict[str, Any]:
    """What the last event tells: all counts so far; in C{zeros} no input, as other servers; in C{bare} output alone."""
    counts = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    given = {} if style == "bare" else {name: 0 if style == "zeros" else told[name] for name in counts}
    late = ("output_tokens", "server_tool_use", "iterations")
    return {**given, **{name: count for name, count in told.items() if name in late}}


def _model(name: str) -> dict[str, Any]:
    shown = name.replace("-", " ").title()
    return {"type": "model", "id": name, "display_name": shown, "created_at": "2025-09-29T00:00:00Z"}
