"""Mistral: chat completions as OpenAI's, but with the usage in the last chunk unasked, and an error body of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llmproxy.simulator.billing import bill
from llmproxy.simulator.dialect import CREATED, Call, Refused, Reply, bearer, event, stream, whole
from llmproxy.simulator.formats import openai
from llmproxy.simulator.formats.chat import DONE
from llmproxy.simulator.text import count
from llmproxy.simulator.use import Use

NAME = "mistral"
MODELS = ("mistral-large-latest", "mistral-small-latest", "codestral-latest", "mistral-embed")

credential = bearer


def reply(call: Call) -> Reply:
    match call.method, call.path:
        case "POST", "chat/completions":
            return chat(call)
        case "POST", "embeddings":
            return embeddings(call)
        case "POST", "ocr":
            return ocr(call)
        case "POST" | "PUT", "files":
            return openai.files(call)
        case "GET" | "HEAD", "models":
            return whole({"object": "list", "data": [_model(name) for name in MODELS]})
        case "GET" | "HEAD", path if path.startswith("models/") and path.removeprefix("models/") in MODELS:
            return whole(_model(path.removeprefix("models/")))
    raise Refused(404, "no Route matched with those values")


def chat(call: Call) -> Reply:
    call.need("model", "messages")
    use = call.use(count(call.body["messages"]), call.text.tokens)
    charge = bill("mistral", str(call.body["model"]), use)
    if call.body.get("stream"):
        return stream(_chunks(call, use)).charged(charge)
    message = {"role": "assistant", "content": str(call.text), "tool_calls": None}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return whole({**_head(call, "chat.completion"), "choices": [choice], "usage": _usage(use)}).charged(charge)


def embeddings(call: Call) -> Reply:
    call.need("model", "input")
    given = call.body["input"]
    inputs = given if isinstance(given, list) else [given]
    data = [
        {"object": "embedding", "index": index, "embedding": openai.vector(str(text), 8)}
        for index, text in enumerate(inputs)
    ]
    use = call.use(count(inputs))
    used = {"prompt_tokens": use.prompt, "completion_tokens": 0, "total_tokens": use.prompt}
    head = {"id": call.digest[:32], "object": "list", "model": call.body["model"]}
    return whole({**head, "data": data, "usage": used}).charged(bill("mistral", str(call.body["model"]), use))


def ocr(call: Call) -> Reply:
    """Paid for by the page."""
    call.need("model", "document")
    use = Use(pages=1).but(call.counts)
    pages = [{"index": number, "markdown": str(call.text)} for number in range(use.pages)]
    told = {"pages_processed": use.pages, "doc_size_bytes": call.length}
    answer = {"model": call.body["model"], "pages": pages, "usage_info": told}
    return whole(answer).charged(bill("mistral", str(call.body["model"]), use))


def error(status: int, message: str, code: str | None, request_id: str) -> dict[str, Any]:
    kind = "invalid_request_error" if status < 500 else "internal_server_error"
    return {"object": "error", "message": message, "type": kind, "param": None, "code": code or str(status)}


def error_event() -> bytes:
    return event(error(500, "Internal server error", "3000", ""))


def lines(request_id: str) -> list[bytes]:
    return [
        b"mistral-correlation-id: " + request_id.encode(),
        b"x-ratelimit-limit-req-minute: 10000",
        b"x-ratelimit-remaining-req-minute: 9999",
        b"x-ratelimit-limit-tokens-minute: 2000000",
        b"x-ratelimit-remaining-tokens-minute: 1999990",
    ]


def _head(call: Call, kind: str) -> dict[str, Any]:
    return {"id": call.digest[:32], "object": kind, "created": CREATED, "model": call.body["model"]}


def _usage(use: Use) -> dict[str, Any]:
    cached = {"prompt_tokens_details": {"cached_tokens": use.cached}} if use.cached else {}
    made = use.completion
    return {"prompt_tokens": use.prompt, "completion_tokens": made, "total_tokens": use.prompt + made, **cached}


def _chunks(call: Call, use: Use) -> Iterator[bytes]:
    head = _head(call, "chat.completion.chunk")

    def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
        return event({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more})

    yield chunk({"role": "assistant", "content": ""})
    for piece in call.text:
        yield chunk({"content": piece})
    yield chunk({"content": ""}, "stop", usage=_usage(use))
    yield DONE


def _model(name: str) -> dict[str, Any]:
    able = {"completion_chat": True, "completion_fim": False, "function_calling": True, "fine_tuning": False}
    head = {"id": name, "object": "model", "type": "base", "created": CREATED, "owned_by": "mistralai"}
    return {**head, "capabilities": able}
