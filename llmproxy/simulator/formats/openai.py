"""OpenAI: its endpoints, embeddings, models, files; what else it makes stands in modules of its own."""

from __future__ import annotations

import base64
import hashlib
import struct
from typing import Any

from llmproxy.simulator.billing import bill
from llmproxy.simulator.dialect import CREATED, Call, Refused, Reply, bearer, event, whole
from llmproxy.simulator.formats import batches, media, responses
from llmproxy.simulator.formats.chat import chat
from llmproxy.simulator.text import count

NAME = "openai"
MODELS = ("gpt-4o", "gpt-4o-mini", "gpt-4.1", "gpt-4.1-mini", "text-embedding-3-small")
_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
_CODES = {401: "invalid_api_key", 404: "not_found", 429: "rate_limit_exceeded"}

credential = bearer


def reply(call: Call) -> Reply:
    match call.method, call.path:
        case "POST", "chat/completions":
            return chat(call)
        case "POST", "responses":
            return responses.reply(call)
        case "POST", "embeddings":
            return embeddings(call)
        case "POST", "images/generations" | "images/edits":
            return media.images(call)
        case "POST", "videos":
            return media.videos(call)
        case "POST", "audio/speech":
            return media.speech(call)
        case "POST", "audio/transcriptions":
            return media.transcription(call)
        case "GET", path if path.startswith("responses/"):
            return responses.fetched(call)
        case "POST", "batches":
            return batches.openai(call)
        case "GET", path if path.startswith(("batches/", "files/file-out_")):
            return batches.openai(call)
        case "POST" | "PUT", "files":
            return files(call)
        case "GET" | "HEAD", "models":
            return whole({"object": "list", "data": [_model(name, "openai") for name in MODELS]})
        case "GET" | "HEAD", path if path.startswith("models/"):
            return model(path.removeprefix("models/"), MODELS, "openai")
    raise Refused(404, f"Invalid URL ({call.method} /v1/{call.path})")


def embeddings(call: Call, seller: str = "openai") -> Reply:
    call.need("model", "input")
    given = call.body["input"]
    inputs = given if isinstance(given, list) and not all(isinstance(item, int) for item in given) else [given]
    size = int(call.body.get("dimensions") or 8)
    packed = call.body.get("encoding_format") == "base64"
    data = []
    for index, text in enumerate(inputs):
        values = vector(str(text), size)
        shown = base64.b64encode(struct.pack(f"<{size}f", *values)).decode() if packed else values
        data.append({"object": "embedding", "index": index, "embedding": shown})
    tokens = sum(len(text) if isinstance(text, list) else count(text) for text in inputs)
    use = call.use(tokens)
    used = {"prompt_tokens": use.prompt, "total_tokens": use.prompt}
    answer = whole({"object": "list", "data": data, "model": call.body["model"], "usage": used})
    return answer.charged(bill(seller, str(call.body["model"]), use))


def vector(text: str, size: int) -> list[float]:
    """Numbers between -1 and 1 that depend on the text alone, and are the same as 32-bit floats."""
    raw = hashlib.shake_256(text.encode("utf-8", "surrogatepass")).digest(size)
    return [(byte - 128) / 128 for byte in raw]


def files(call: Call) -> Reply:
    """Any body: says how many bytes arrived and their SHA-256."""
    return whole(
        {
            "id": f"file-{call.digest[:24]}",
            "object": "file",
            "bytes": call.length,
            "sha256": call.digest,
            "created_at": CREATED,
            "filename": "upload",
            "purpose": "user_data",
            "status": "processed",
        }
    )


def model(name: str, known: tuple[str, ...], owner: str) -> Reply:
    if name not in known:
        raise Refused(404, f"The model '{name}' does not exist", "model_not_found")
    return whole(_model(name, owner))


def error(status: int, message: str, code: str | None, request_id: str) -> dict[str, Any]:
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": None, "code": code or _CODES.get(status)}}


def error_event() -> bytes:
    return event(error(500, "The server had an error while processing your request.", "server_error", ""))


def lines(request_id: str) -> list[bytes]:
    return [
        b"x-request-id: " + request_id.encode(),
        b"openai-processing-ms: 5",
        b"openai-organization: org-simulator",
        b"openai-version: 2020-10-01",
        *ratelimits(),
    ]


def ratelimits() -> list[bytes]:
    return [
        b"x-ratelimit-limit-requests: 10000",
        b"x-ratelimit-limit-tokens: 2000000",
        b"x-ratelimit-remaining-requests: 9999",
        b"x-ratelimit-remaining-tokens: 1999990",
        b"x-ratelimit-reset-requests: 6ms",
        b"x-ratelimit-reset-tokens: 1s",
    ]


def _model(name: str, owner: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": CREATED, "owned_by": owner}
