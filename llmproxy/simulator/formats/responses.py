"""OpenAI's responses: JSON, and the named events of its stream."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count as numbers
from typing import Any

from llmproxy.simulator.dialect import CREATED, Call, Reply, event, stream, whole
from llmproxy.simulator.text import count


def reply(call: Call) -> Reply:
    call.need("model", "input")
    if call.body.get("stream"):
        return stream(_events(call))
    return whole(_response(call, "completed"))


def _response(call: Call, status: str) -> dict[str, Any]:
    done = status == "completed"
    return {
        "id": f"resp_{call.digest[:32]}",
        "object": "response",
        "created_at": CREATED,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": call.body.get("instructions"),
        "max_output_tokens": call.body.get("max_output_tokens"),
        "model": call.body["model"],
        "output": [_item(call, status)] if done else [],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": _usage(call) if done else None,
        "metadata": {},
    }


def _usage(call: Call) -> dict[str, Any]:
    given = count(call.body["input"]) + count(call.body.get("instructions") or "")
    made = call.text.tokens
    return {
        "input_tokens": given,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": made,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": given + made,
    }


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}


def _item(call: Call, status: str) -> dict[str, Any]:
    content = [_part(str(call.text))] if status == "completed" else []
    return {"id": _item_id(call), "type": "message", "status": status, "role": "assistant", "content": content}


def _item_id(call: Call) -> str:
    return f"msg_{call.digest[:32]}"


def _events(call: Call) -> Iterator[bytes]:
    number = numbers()

    def named(name: str, **fields: Any) -> bytes:
        return event({"type": name, "sequence_number": next(number), **fields}, name)

    place = {"item_id": _item_id(call), "output_index": 0, "content_index": 0}
    yield named("response.created", response=_response(call, "in_progress"))
    yield named("response.in_progress", response=_response(call, "in_progress"))
    yield named("response.output_item.added", output_index=0, item=_item(call, "in_progress"))
    yield named("response.content_part.added", **place, part=_part(""))
    for piece in call.text:
        yield named("response.output_text.delta", **place, delta=piece, logprobs=[])
    yield named("response.output_text.done", **place, text=str(call.text), logprobs=[])
    yield named("response.content_part.done", **place, part=_part(str(call.text)))
    yield named("response.output_item.done", output_index=0, item=_item(call, "completed"))
    yield named("response.completed", response=_response(call, "completed"))
