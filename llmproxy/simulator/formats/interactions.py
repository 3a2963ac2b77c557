"""Gemini's interactions: usage in words of their own, in the last event but the sentinel of a stream.

Gemini API reference, "Interactions": C{total_thought_tokens} stand beside C{total_output_tokens}, the cached are within
the input.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llmproxy.simulator.billing import bill
from llmproxy.simulator.dialect import Call, Reply, event, stream, whole
from llmproxy.simulator.formats.chat import DONE
from llmproxy.simulator.text import count
from llmproxy.simulator.use import Use


def reply(call: Call) -> Reply:
    call.need("model", "input")
    use = call.use(count(call.body["input"]), call.text.tokens)
    charge = bill("google", str(call.body["model"]), use)
    if call.body.get("stream"):
        return stream(_events(call, use)).charged(charge)
    return whole(_interaction(call, use)).charged(charge)


def _interaction(call: Call, use: Use | None) -> dict[str, Any]:
    head = {"id": f"v1_{call.digest[:24]}", "object": "interaction", "model": call.body["model"]}
    if use is None:
        return {**head, "status": "in_progress"}
    made = use.completion - use.reasoning
    told = {
        "total_input_tokens": use.prompt,
        "total_cached_tokens": use.cached,
        "total_output_tokens": made,
        "total_thought_tokens": use.reasoning,
        "total_tool_use_tokens": use.tool,
        "total_tokens": use.prompt + use.tool + use.completion,
    }
    return {**head, "status": "completed", "outputs": [{"type": "text", "text": str(call.text)}], "usage": told}


def _events(call: Call, use: Use) -> Iterator[bytes]:
    yield event({"event_type": "interaction.created", "interaction": _interaction(call, None)})
    for piece in call.text:
        yield event({"event_type": "step.delta", "index": 0, "delta": {"type": "text", "text": piece}})
    yield event({"event_type": "interaction.completed", "interaction": _interaction(call, use)})
    yield DONE
