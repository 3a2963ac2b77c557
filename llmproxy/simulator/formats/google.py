"""Gemini: generateContent, its two streamed forms, countTokens, embedContent, and OpenAI's chat completions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from llmproxy.simulator.billing import bill, offered
from llmproxy.simulator.dialect import JSON, Call, Refused, Reply, bearer, encode, event, stream, whole
from llmproxy.simulator.formats import interactions
from llmproxy.simulator.formats.chat import chat
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
    own = call.fields.get("x-goog-api-key") or call.query.get("key")
    return own or (bearer(call) if call.path.startswith("openai/") else None)


def reply(call: Call) -> Reply:
    if call.method in ("GET", "HEAD"):
        return _models(call.path)
    if call.path == "openai/chat/completions":
        return chat(replace(call, style="total"), "google")
    if call.method == "POST" and call.path == "interactions":
        return interactions.reply(call)
    name, _, verb = call.path.removeprefix("models/").rpartition(":")
    if call.method != "POST" or not call.path.startswith("models/") or not name:
        raise Refused(404, f"Not found: {call.path}")
    match verb:
        case "generateContent":
            call.need("contents")
            answer = Answer(call, name)
            return whole(answer.chunk(str(call.text), True)).charged(answer.bill)
        case "streamGenerateContent":
            call.need("contents")
            answer = Answer(call, name)
            if call.query.get("alt") == "sse":
                return stream(event(chunk, end="\r\n") for chunk in answer.chunks()).charged(answer.bill)
            return stream(_array(answer.chunks()), f"{JSON}; charset=UTF-8").charged(answer.bill)
        case "countTokens":
            given = _given(call.body.get("generateContentRequest") or call.body)
            return whole({"totalTokens": given, "promptTokensDetails": _details(TEXT=given)})
        case "embedContent":
            use = call.use(count(call.body.get("content")))
            return whole({"embedding": _embedding(call.body)}).charged(bill("google", name, use))
        case "batchEmbedContents":
            items = call.body.get("requests") or []
            use = call.use(sum(count(item.get("content")) for item in items))
            return whole({"embeddings": [_embedding(item) for item in items]}).charged(bill("google", name, use))
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


def _details(**modalities: int) -> list[dict[str, Any]]:
    return [{"modality": name, "tokenCount": count} for name, count in modalities.items() if count]


class Answer:
    """One response of generateContent, whole or in pieces."""

    def __init__(self, call: Call, model: str) -> None:
        self._call, self._model = call, model
        self._use = call.use(_given(call.body), call.text.tokens)
        asked = str(call.body.get("serviceTier") or "standard")
        self._tier = call.tier or (asked if offered("google", model, asked) else "standard")
        self.bill = bill("google", model, self._use, self._tier)

    def chunk(self, text: str, last: bool) -> dict[str, Any]:
        """One event, or the whole response; the last alone has the whole usage."""
        candidate: dict[str, Any] = {"content": {"parts": [{"text": text}], "role": "model"}, "index": 0}
        if last:
            candidate["finishReason"] = "STOP"
        if last and self._use.grounded:
            candidate["groundingMetadata"] = {"webSearchQueries": ["one", "two"]}
        head = {"modelVersion": self._model, "responseId": self._call.digest[:22]}
        return {"candidates": [candidate], **head, "usageMetadata": self._usage(last)}

    def chunks(self) -> Iterator[dict[str, Any]]:
        for number, piece in enumerate(self._call.text, 1):
            yield self.chunk(piece, number == self._call.text.pieces)

    def _usage(self, last: bool) -> dict[str, Any]:
        """UsageMetadata, as the reference of generateContent has it: thoughts stand beside the candidates."""
        use = self._use
        modalities = {"TEXT": use.input + use.cached, "AUDIO": use.audio + use.cached_audio, "IMAGE": use.image}
        told: dict[str, Any] = {"promptTokenCount": use.prompt, "promptTokensDetails": _details(**modalities)}
        if self._tier != "standard" or self._call.body.get("serviceTier"):
            told["serviceTier"] = self._tier
        if use.cached + use.cached_audio:
            told["cachedContentTokenCount"] = use.cached + use.cached_audio
            told["cacheTokensDetails"] = _details(TEXT=use.cached, AUDIO=use.cached_audio)
        if not last:
            return {**told, "totalTokenCount": use.prompt}
        if use.reasoning:
            told["thoughtsTokenCount"] = use.reasoning
        if use.tool:
            told["toolUsePromptTokenCount"] = use.tool
        made = use.completion - use.reasoning
        return {**told, "candidatesTokenCount": made, "totalTokenCount": use.prompt + use.tool + use.completion}


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
