"""OpenAI's responses: JSON, the named events of its stream, and those that run in the background."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count as numbers
from typing import Any

from llmproxy.simulator.billing import bill
from llmproxy.simulator.dialect import CREATED, Call, Reply, event, stream, whole
from llmproxy.simulator.formats.batches import pack, unpack_tier
from llmproxy.simulator.formats.chat import answered_tier
from llmproxy.simulator.text import count
from llmproxy.simulator.use import Use


def reply(call: Call) -> Reply:
    call.need("model", "input")
    use = call.use(count(call.body["input"]) + count(call.body.get("instructions") or ""), call.text.tokens)
    tier = answered_tier(call, "openai")
    charge = bill("openai", str(call.body["model"]), use, "standard" if tier == "default" else tier)
    answer = Answer(call, use, tier)
    if call.body.get("background"):
        return whole(answer.shown("queued")).charged(charge)
    if call.body.get("stream"):
        return stream(answer.events()).charged(charge)
    return whole(answer.shown("completed")).charged(charge)


def fetched(call: Call) -> Reply:
    """One that ran in the background, done; it was paid for when it was asked for."""
    name = call.path.removeprefix("responses/")
    model, use, tier = unpack_tier("resp_", name)
    return whole(Answer(replace(call, body={"model": model, "background": True}), use, tier).shown("completed"))


class Answer:
    """One response, in each of its states."""

    def __init__(self, call: Call, use: Use, tier: str) -> None:
        self._call, self._use, self._tier = call, use, tier
        kept = call.body.get("background")
        self._id = pack("resp_", str(call.body["model"]), use, tier) if kept else f"resp_{call.digest[:32]}"

    def shown(self, status: str) -> dict[str, Any]:
        done, call = status == "completed", self._call
        return {
            "id": self._id,
            "object": "response",
            "created_at": CREATED,
            "status": status,
            "background": bool(call.body.get("background")),
            "error": None,
            "incomplete_details": None,
            "instructions": call.body.get("instructions"),
            "max_output_tokens": call.body.get("max_output_tokens"),
            "model": call.body["model"],
            "output": [*self._calls(), _item(call, status)] if done else [],
            "parallel_tool_calls": True,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "service_tier": self._tier,
            "store": True,
            "temperature": 1.0,
            "text": {"format": {"type": "text"}},
            "tool_choice": "auto",
            "tools": call.body.get("tools") or [],
            "top_p": 1.0,
            "truncation": "disabled",
            "usage": self._usage() if done else None,
            "metadata": {},
        }

    def _usage(self) -> dict[str, Any]:
        use = self._use
        return {
            "input_tokens": use.prompt,
            "input_tokens_details": {"cached_tokens": use.cached, "cache_write_tokens": 0},
            "output_tokens": use.completion,
            "output_tokens_details": {"reasoning_tokens": use.reasoning},
            "total_tokens": use.prompt + use.completion,
        }

    def _calls(self) -> list[dict[str, Any]]:
        """What was searched for is told as items of the output alone."""
        searches = self._use.searches + self._use.preview_searches
        found: list[dict[str, Any]] = [{"type": "web_search_call", "action": {"type": "search"}}] * searches
        found += [{"type": "file_search_call", "queries": ["q"], "results": None}] * self._use.file_searches
        return [{"id": f"call_{number}", "status": "completed", **item} for number, item in enumerate(found)]

    def events(self) -> Iterator[bytes]:
        number, call = numbers(), self._call

        def named(name: str, **fields: Any) -> bytes:
            return event({"type": name, "sequence_number": next(number), **fields}, name)

        calls = self._calls()
        place = {"item_id": _item_id(call), "output_index": len(calls), "content_index": 0}
        yield named("response.created", response=self.shown("in_progress"))
        yield named("response.in_progress", response=self.shown("in_progress"))
        for index, item in enumerate(calls):
            yield named("response.output_item.done", output_index=index, item=item)
        yield named("response.output_item.added", output_index=len(calls), item=_item(call, "in_progress"))
        yield named("response.content_part.added", **place, part=_part(""))
        for piece in call.text:
            yield named("response.output_text.delta", **place, delta=piece, logprobs=[])
        yield named("response.output_text.done", **place, text=str(call.text), logprobs=[])
        yield named("response.content_part.done", **place, part=_part(str(call.text)))
        yield named("response.output_item.done", output_index=len(calls), item=_item(call, "completed"))
        yield named("response.completed", response=self.shown("completed"))


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}


def _item(call: Call, status: str) -> dict[str, Any]:
    content = [_part(str(call.text))] if status == "completed" else []
    return {"id": _item_id(call), "type": "message", "status": status, "role": "assistant", "content": content}


def _item_id(call: Call) -> str:
    return f"msg_{call.digest[:32]}"
