"""Batches of OpenAI and Anthropic: paid for once, when they are made, and looked at as often as one likes.

What a batch will have used stands in its id, so that nothing need be remembered.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

from llmproxy.simulator.billing import bill
from llmproxy.simulator.dialect import CREATED, Call, Refused, Reply, encode, whole
from llmproxy.simulator.text import count
from llmproxy.simulator.use import Use


def openai(call: Call) -> Reply:
    """C{POST batches}, C{GET batches/…}, C{GET files/…/content}.

    The model of its requests, which stand in a file, is C{metadata.model}.
    """
    if call.method == "POST":
        call.need("input_file_id", "endpoint", "completion_window")
        model = str((call.body.get("metadata") or {}).get("model", "gpt-4o-mini"))
        use = Use(input=1000, output=200).but(call.counts)
        charge = bill("openai", model, use, "batch")
        return whole(_batch(pack("batch_", model, use), model, None)).charged(charge)
    if call.path.startswith("batches/"):
        name = call.path.removeprefix("batches/")
        return whole(_batch(name, *unpack("batch_", name)))
    model, use = unpack("file-out_", call.path.removeprefix("files/").removesuffix("/content"))
    body = {"id": "chatcmpl-1", "object": "chat.completion", "model": model, "choices": [], "usage": _chat_usage(use)}
    line = {"id": "batch_req_1", "custom_id": "one", "response": {"status_code": 200, "body": body}, "error": None}
    return Reply(200, "application/octet-stream", encode(line) + b"\n")


def _batch(name: str, model: str, use: Use | None) -> dict[str, Any]:
    done = use is not None
    batch: dict[str, Any] = {
        "id": name,
        "object": "batch",
        "endpoint": "/v1/chat/completions",
        "model": model if done else None,
        "status": "completed" if done else "validating",
        "output_file_id": name.replace("batch_", "file-out_", 1) if done else None,
        "created_at": CREATED,
        "request_counts": {"total": int(done), "completed": int(done), "failed": 0},
    }
    if use is not None:
        batch["usage"] = {
            "input_tokens": use.prompt,
            "input_tokens_details": {"cached_tokens": use.cached},
            "output_tokens": use.completion,
            "output_tokens_details": {"reasoning_tokens": use.reasoning},
            "total_tokens": use.prompt + use.completion,
        }
    return batch


def _chat_usage(use: Use) -> dict[str, Any]:
    made = use.completion
    return {"prompt_tokens": use.prompt, "completion_tokens": made, "total_tokens": use.prompt + made}


def anthropic(call: Call) -> Reply:
    """C{POST messages/batches}, C{GET messages/batches/…} and its C{/results}; all requests have one model."""
    if call.method == "POST":
        call.need("requests")
        wanted = [item["params"] for item in call.body["requests"]]
        words = sum(count(params["messages"]) for params in wanted)
        use = Use(input=words, output=len(wanted) * call.text.tokens).but(call.counts)
        model = str(wanted[0]["model"])
        name = pack("msgbatch_", model, use)
        return whole(_message_batch(name, "in_progress")).charged(bill("anthropic", model, use, "batch"))
    name = call.path.removeprefix("messages/batches/").removesuffix("/results")
    model, use = unpack("msgbatch_", name)
    if not call.path.endswith("/results"):
        return whole(_message_batch(name, "ended"))
    usage = {
        "input_tokens": use.input,
        "cache_creation_input_tokens": use.written + use.written_1h,
        "cache_read_input_tokens": use.cached,
        "cache_creation": {"ephemeral_5m_input_tokens": use.written, "ephemeral_1h_input_tokens": use.written_1h},
        "output_tokens": use.completion,
        "service_tier": "batch",
    }
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": model, "content": [], "usage": usage}
    line = {"custom_id": "one", "result": {"type": "succeeded", "message": message}}
    return Reply(200, "application/x-jsonl", encode(line) + b"\n")


def _message_batch(name: str, status: str) -> dict[str, Any]:
    ended = status == "ended"
    return {
        "id": name,
        "type": "message_batch",
        "processing_status": status,
        "request_counts": {"processing": int(not ended), "succeeded": int(ended), "errored": 0},
        "results_url": f"/v1/messages/batches/{name}/results" if ended else None,
    }


def pack(prefix: str, model: str, use: Use, tier: str = "") -> str:
    """An id that says what will have been used."""
    return prefix + urlsafe_b64encode(encode([model, use.counts(), tier])).decode().rstrip("=")


def unpack(prefix: str, name: str) -> tuple[str, Use]:
    model, use, _ = unpack_tier(prefix, name)
    return model, use


def unpack_tier(prefix: str, name: str) -> tuple[str, Use, str]:
    """What an id says; L{Refused} for one that was not made here."""
    text = name.removeprefix(prefix)
    try:
        model, counts, tier = json.loads(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        return model, Use().but(counts), tier
    except (ValueError, TypeError) as e:
        raise Refused(404, f"There is no '{name}'.", "not_found") from e
