"""Ollama's own API: chat and generate, as a line of JSON for each piece unless C{stream} is false.

Ollama's API reference: C{prompt_eval_count} and C{eval_count} stand in the last object.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llmproxy.simulator.billing import bill
from llmproxy.simulator.dialect import Call, Refused, Reply, bearer, encode, stream, whole
from llmproxy.simulator.text import count
from llmproxy.simulator.use import Use

NAME = "ollama"
_CREATED = "2026-01-01T00:00:00Z"

credential = bearer


def reply(call: Call) -> Reply:
    if call.method != "POST" or call.path not in ("chat", "generate"):
        raise Refused(404, "not found")
    call.need("model")
    use = call.use(count(call.body.get("messages") or call.body.get("prompt")), call.text.tokens)
    charge = bill("ollama", str(call.body["model"]), use)
    if call.body.get("stream") is False:
        return whole(_piece(call, str(call.text), use)).charged(charge)
    return stream(_lines(call, use), "application/x-ndjson").charged(charge)


def error(status: int, message: str, code: str | None, request_id: str) -> dict[str, Any]:
    return {"error": message}


def error_event() -> bytes:
    return encode({"error": "an error was encountered while running the model"}) + b"\n"


def lines(request_id: str) -> list[bytes]:
    return []


def _lines(call: Call, use: Use) -> Iterator[bytes]:
    for text in call.text:
        yield encode(_piece(call, text, None)) + b"\n"
    yield encode(_piece(call, "", use)) + b"\n"


def _piece(call: Call, text: str, use: Use | None) -> dict[str, Any]:
    said = {"message": {"role": "assistant", "content": text}} if call.path == "chat" else {"response": text}
    head = {"model": call.body["model"], "created_at": _CREATED, **said}
    if use is None:
        return {**head, "done": False}
    times = {"total_duration": 5_000_000_000, "eval_duration": 4_000_000_000}
    counts = {"prompt_eval_count": use.prompt, "eval_count": use.completion}
    return {**head, "done": True, "done_reason": "stop", **times, **counts}
