"""Gemini: generateContent, its two streamed forms, countTokens and embedContent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llmproxy.simulator.dialect import JSON, Call, Refused, Reply, encode, event, stream, whole
from llmproxy.simulator.formats.openai import vector
from llmproxy.simulator.text import count

NAME = "google"
MODELS = ("gemini-2.5-pro", "gemini-2.5-flash", "gemini-embedding-001")
_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def credential(call: Call) -> str | None:
    return call.fields.get("x-goog-api-key") or call.query.get("key")


def reply(call: Call) -> Reply:
    if call.method in ("GET", "HEAD"):
        return _models(call.path)
    name, _, verb = call.path.removeprefix("models/").rpartition(":")
    if call.method != "POST" or not call.path.startswith("models/") or not name:
        raise Refused(404, f"Not found: {call.path}")
    match verb:
        case "generateContent":
            call.need("contents")
            return whole({**_chunk(call, str(call.text), True), "usageMetadata": _usage(call, True)})
        case "streamGenerateContent":
            call.need("contents")
            if call.query.get("alt") == "sse":
                return stream(event(chunk, end="\r\n") for chunk in _chunks(call))
            return stream(_array(_chunks(call)), f"{JSON}; charset=UTF-8")
        case "countTokens":
            given = _given(call.body.get("generateContentRequest") or call.body)
            return whole({"totalTokens": given, "promptTokensDetails": _details(given)})
        case "embedContent":
            return whole({"embedding": _embedding(call.body)})
        case "batchEmbedContents":
            return whole({"embeddings": [_embedding(item) for item in call.body.get("requests") or []]})
    raise Refused(404, f"Not found: {call.path}")


def error(status: int, message: str, code: str | None, request_id: str) -> dict[str, Any]:
    name = _STATUS.get(status, "INVALID_ARGUMENT" if status < 500 else "INTERNAL")
    reason = code.upper() if code else name
    info = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": "API_KEY_INVALID" if status == 401 else reason,
        "domain": "googleapis.com",
    }
    return {"error": {"code": status, "message": message, "status": name, "details": [info]}}


def error_event() -> bytes:
    return event(error(503, "The model is overloaded. Please try again later.", None, ""), end="\r\n")


def lines(request_id: str) -> list[bytes]:
    return [b"Vary: Origin", b"Vary: X-Origin", b"Vary: Referer", b"Server-Timing: gfet4t7; dur=5"]


def _models(path: str) -> Reply:
    if path == "models":
        return whole({"models": [_model(name) for name in MODELS]})
    name = path.removeprefix("models/")
    if name not in MODELS:
        raise Refused(404, f"models/{name} is not found")
    return whole(_model(name))


def _model(name: str) -> dict[str, Any]:
    verbs = ["generateContent", "countTokens", "embedContent"]
    return {"name": f"models/{name}", "version": "001", "displayName": name, "supportedGenerationMethods": verbs}


def _given(body: Any) -> int:
    return count(body.get("contents")) + count(body.get("systemInstruction"))


def _details(tokens: int) -> list[dict[str, Any]]:
    return [{"modality": "TEXT", "tokenCount": tokens}]


def _usage(call: Call, last: bool) -> dict[str, Any]:
    """The last chunk's counts are whole; the ones before know the prompt alone."""
    given, made = _given(call.body), call.text.tokens
    known = {"promptTokenCount": given, "promptTokensDetails": _details(given)}
    if not last:
        return {**known, "totalTokenCount": given}
    return {**known, "candidatesTokenCount": made, "totalTokenCount": given + made}


def _chunk(call: Call, text: str, last: bool) -> dict[str, Any]:
    name = call.path.removeprefix("models/").rpartition(":")[0]
    candidate: dict[str, Any] = {"content": {"parts": [{"text": text}], "role": "model"}, "index": 0}
    if last:
        candidate["finishReason"] = "STOP"
    return {"candidates": [candidate], "modelVersion": name, "responseId": call.digest[:22]}


def _chunks(call: Call) -> Iterator[dict[str, Any]]:
    for number, piece in enumerate(call.text, 1):
        last = number == call.text.pieces
        yield {**_chunk(call, piece, last), "usageMetadata": _usage(call, last)}


def _array(chunks: Iterator[dict[str, Any]]) -> Iterator[bytes]:
    """One JSON array, an element at a time."""
    before = b"["
    for chunk in chunks:
        yield before + encode(chunk)
        before = b",\r\n"
    yield b"]"


def _embedding(body: Any) -> dict[str, Any]:
    content = body.get("content")
    if not content:
        raise Refused(400, "content is required")
    return {"values": vector(encode(content).decode(), int(body.get("outputDimensionality") or 8))}
