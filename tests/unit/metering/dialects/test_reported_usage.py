"""What several events say together does not hang on the pieces they come in, nor on events that say nothing."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.metering.dialects.registry import extract
from llmproxy.metering.dialects.reported_usage import NO_REPORT, ReportedUsage, merge
from tests.unit.metering.dialects.answers import counts, measured

COUNTS = st.sampled_from(["prompt_tokens", "completion_tokens", "total_tokens", "input_tokens", "output_tokens"])
USAGE = st.dictionaries(COUNTS, st.integers(1, 10**6), min_size=1, max_size=4)
EMPTY = st.sampled_from(
    [
        {},
        {"usage": None},
        {"usage": {}},
        {"usage": {"prompt_tokens": 0, "completion_tokens": 0}},
        {"usage": {"prompt_tokens": None, "input_tokens": 0, "prompt_tokens_details": {}}},
        {"type": "message_delta", "usage": {"output_tokens": 0, "cache_creation": {}}},
        {"choices": []},
        {"x_groq": {"id": "r"}},
    ]
)


def together(events: list[Any]) -> ReportedUsage:
    found = NO_REPORT
    for event in events:
        found = merge(found, extract(event))
    return found


def known(reading: ReportedUsage) -> dict[str, Any]:
    return {name: value for name, value in (reading.usage or {}).items() if value}


@given(st.lists(USAGE, min_size=1, max_size=4), st.data())
def test_what_says_nothing_changes_nothing(usages: list[dict[str, int]], data: st.DataObject) -> None:
    """Wherever it stands: nulls, zeros and empty objects, before, between and behind."""
    events: list[Any] = [{"usage": usage} for usage in usages]
    plain = known(together(events))
    for _ in range(data.draw(st.integers(1, 4))):
        events.insert(data.draw(st.integers(0, len(events))), data.draw(EMPTY))
    assert known(together(events)) == plain


@given(USAGE, st.integers(1, 3))
def test_what_is_said_twice_counts_once(usage: dict[str, int], times: int) -> None:
    event = {"usage": usage, "output": [{"type": "web_search_call", "id": "a"}]}
    assert together([event] * times).units() == {"web_searches": 1}
    assert together([event] * times).usage == usage


@given(st.lists(USAGE | st.none(), min_size=1, max_size=6), st.integers(1, 40), st.sampled_from(["\n\n", "\r\n\r\n"]))
def test_pieces(usages: list[dict[str, int] | None], piece: int, end: str) -> None:
    """A stream that comes in any pieces tells what it tells at once."""
    parts = [
        {"model": "m", "choices": [{"delta": {"content": "é"}, "finish_reason": "stop"}], "usage": u} for u in usages
    ]
    body = "".join(f"data: {json.dumps(part)}{end}" for part in parts).encode()
    whole = measured(body, kind="text/event-stream")
    split = measured(body, kind="text/event-stream", piece=piece)
    assert (counts(split), split.basis) == (counts(whole), whole.basis)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "usage",
                        "choices",
                        "output",
                        "tools",
                        "type",
                        "item",
                        "tool_usage",
                        "candidates",
                        "groundingMetadata",
                        "webSearchQueries",
                        "iterations",
                        "input_tokens",
                        "response",
                        "id",
                        "x_groq",
                        "meta",
                        "delta",
                        "image_gen",
                        "web_search",
                        "action",
                        "duration",
                        "task",
                    ]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=20,
    )
)
def test_any_json(said: Any) -> None:
    """No answer, however made, raises."""
    for path, provider in (("/v1/responses", "openai"), ("/v1/messages", "anthropic"), ("/api/chat", "")):
        measured(json.dumps(said).encode(), provider, path)
        measured(b"data: " + json.dumps(said).encode() + b"\n\n", provider, path, kind="text/event-stream")
