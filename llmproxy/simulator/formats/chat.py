"""Chat completions, as OpenAI answers them and as those do who speak its language with an accent of their own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llmproxy.simulator.billing import bill, offered
from llmproxy.simulator.dialect import CREATED, Call, Reply, event, stream, whole
from llmproxy.simulator.text import count
from llmproxy.simulator.use import Use

DONE = b"data: [DONE]\n\n"
_SELLERS = ("xai", "groq", "moonshot")
_UNASKED = ("xai", "total")
"""Those whose last chunk reports usage without being asked."""


def chat(call: Call, seller: str = "openai") -> Reply:
    """@param seller: Whose models they are, unless the style says so."""
    call.need("model", "messages")
    use = call.use(count(call.body["messages"]), call.text.tokens)
    seller = call.style if call.style in _SELLERS else seller
    tier = answered_tier(call, seller)
    charge = bill(seller, str(call.body["model"]), use, "standard" if tier == "default" else tier)
    if call.body.get("stream"):
        return stream(_chunks(call, use, tier)).charged(charge)
    message: dict[str, Any] = {"role": "assistant", "content": str(call.text), "refusal": None, "annotations": []}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    answer = {**_head(call, "chat.completion", tier), "choices": [choice], "usage": usage(use, call.style)}
    return whole(answer).charged(charge)


def answered_tier(call: Call, seller: str) -> str:
    """The service tier of the response: as it was steered, else as it was asked for where the provider sells that."""
    asked = str(call.body.get("service_tier") or "default")
    return call.tier or (asked if offered(seller, str(call.body["model"]), asked) else "default")


def usage(use: Use, style: str = "") -> dict[str, Any]:
    """The usage object; the sources are OpenAI's, xAI's, Groq's and Moonshot's API references.

    xAI reports reasoning beside the completion, Google's compatible endpoint (C{total}) only in the total; C{bare} has
    no details, as many who serve open models.
    """
    beside = use.reasoning if style in ("xai", "total") else 0
    told: dict[str, Any] = {
        "prompt_tokens": use.prompt,
        "completion_tokens": use.completion - beside,
        "total_tokens": use.prompt + use.completion,
    }
    if style in ("total", "bare"):
        return told
    if style == "groq":
        return {**told, "queue_time": 0.01, "prompt_time": 0.02, "completion_time": 0.03, "total_time": 0.05}
    if style == "moonshot":
        return {**told, "cached_tokens": use.cached}
    given = {"cached_tokens": use.cached + use.cached_audio, "audio_tokens": use.audio + use.cached_audio}
    made = {
        "reasoning_tokens": use.reasoning,
        "audio_tokens": use.audio_output,
        "accepted_prediction_tokens": 0,
        "rejected_prediction_tokens": 0,
    }
    return {**told, "prompt_tokens_details": given, "completion_tokens_details": made}


def _head(call: Call, kind: str, tier: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{call.digest[:24]}",
        "object": kind,
        "created": CREATED,
        "model": call.body["model"],
        "service_tier": tier,
        "system_fingerprint": "fp_simulator",
    }


def _chunks(call: Call, use: Use, tier: str) -> Iterator[bytes]:
    options = call.body.get("stream_options")
    asked = isinstance(options, dict) and options.get("include_usage")
    head = _head(call, "chat.completion.chunk", tier)
    tail = {"usage": None} if asked else {}

    def chunk(delta: dict[str, Any], finish: str | None = None, choice: dict[str, Any] | None = None) -> dict[str, Any]:
        one = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish, **(choice or {})}
        return {**head, "choices": [one], **tail}

    told = usage(use, call.style)
    yield event(chunk({"role": "assistant", "content": "", "refusal": None}))
    for piece in call.text:
        yield event(chunk({"content": piece}))
    last = chunk({}, "stop", {"usage": told} if call.style == "moonshot" else None)
    if call.style == "groq":
        last |= {"x_groq": {"id": f"req_{call.digest[:24]}", "usage": told}}
    yield event(last | {"usage": told} if call.style in _UNASKED else last)
    if asked and call.style not in _UNASKED:
        yield event({**head, "choices": [], "usage": told})
    yield DONE
