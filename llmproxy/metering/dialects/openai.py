"""OpenAI's API, which most servers speak: chat, responses, embeddings, speech, pictures, films, batches.

Facts: C{developers.openai.com/api/reference}, the types of openai-python 3.54, and the price page
C{developers.openai.com/api/docs/pricing}, as of November 2026. For what requests are billed, see L{openai_requests}.
"""

from __future__ import annotations

from collections.abc import Mapping

from llmproxy.metering.dialects.openai_requests import (
    MEDIA,
    image_units,
    max_image_units,
    max_tool_calls,
    searches_always,
    speech_units,
    video_units,
)
from llmproxy.metering.dialects.operation import ProviderOperation, Units, requests_in_file, unknown_units
from llmproxy.metering.dialects.reported_usage import Call, Counts, UsageSyntax
from llmproxy.metering.dialects.shapes import Shape, has_any, number
from llmproxy.metering.json_scanner import WantedMembers

UNITS_BY_CALL = {
    "web_search_call": "web_searches",
    "file_search_call": "storage_searches",
    "code_interpreter_call": "code_executions",  # by the minute of its container, which no response tells
    "shell_call": "code_executions",
}
# Answers


def other_usage_object(answer: Counts) -> Counts | None:
    """Moonshot reports a stream's usage in the first of the choices, Groq in an object of its own name."""
    choices = answer.get("choices")
    if isinstance(choices, list) and len(choices) < 256:
        for choice in choices:
            found = choice.get("usage") if isinstance(choice, dict) else None
            if isinstance(found, dict) and found:
                return found
    vendor = answer.get("x_groq")
    found = vendor.get("usage") if isinstance(vendor, dict) else None
    if isinstance(found, dict) and found:
        return found
    # A transcription with all details; whisper is billed by the second.
    seconds = answer.get("duration")
    if seconds is not None and ("language" in answer or "task" in answer):
        try:
            return {"type": "duration", "seconds": float(seconds)}
        except (TypeError, ValueError):
            return None
    return None


_NONE: frozenset[Call] = frozenset()


def calls(said: Counts, answer: Counts) -> frozenset[Call]:
    """Items of a response that are calls of a tool, and the search that the search models always make.

    Only the action C{search} of a web search is billed (guide "Web search").
    """
    model, output = answer.get("model"), answer.get("output")
    always = isinstance(model, str) and "-search-" in model and "choices" in answer and searches_always(model)
    if output is None and "item" not in said:
        return frozenset({("web_search_previews", "always")}) if always else _NONE
    found: set[Call] = set()
    items = output if isinstance(output, list) else [said["item"]] if "item" in said else []
    preview = False
    for place, item in enumerate(items):
        kind = item.get("type") if isinstance(item, dict) else None
        unit = UNITS_BY_CALL.get(kind) if isinstance(kind, str) else None
        if unit is None or item.get("status") == "failed":
            continue
        action = item.get("action")
        if isinstance(action, dict) and kind == "web_search_call" and action.get("type", "search") != "search":
            continue
        name = item.get("id")
        found.add((unit, name if isinstance(name, str) else str(place)))
    tools = answer.get("tools")
    if found and isinstance(tools, list):
        preview = any(_is_preview(tool) for tool in tools)
    if preview:
        return frozenset(("web_search_previews" if unit == "web_searches" else unit, name) for unit, name in found)
    return frozenset(found)


def _is_preview(tool: object) -> bool:
    kind = tool.get("type") if isinstance(tool, dict) else None
    return isinstance(kind, str) and kind.startswith("web_search_preview")


def counted_tool_calls(answer: Counts) -> Mapping[str, int]:
    """How many searches the provider counted itself: C{tool_usage.web_search.num_requests}."""
    usage = answer.get("tool_usage")
    search = usage.get("web_search") if isinstance(usage, dict) else None
    count = number(search.get("num_requests")) if isinstance(search, dict) else None
    if count is None:
        return {}
    tools = answer.get("tools")
    preview = isinstance(tools, list) and any(_is_preview(tool) for tool in tools)
    return {"web_search_previews" if preview else "web_searches": int(count)}


def other_models(answer: Counts) -> tuple[tuple[str, Counts], ...]:
    """The model that drew pictures for a response: C{tool_usage.image_gen}, which C{usage} does not hold."""
    usage = answer.get("tool_usage")
    drawn = usage.get("image_gen") if isinstance(usage, dict) else None
    if not isinstance(drawn, dict) or not drawn.get("total_tokens"):
        return ()
    tools = answer.get("tools")
    for tool in tools if isinstance(tools, list) else ():
        if isinstance(tool, dict) and tool.get("type") == "image_generation" and isinstance(tool.get("model"), str):
            return ((tool["model"], drawn),)
    return (("unknown", drawn),)


def final(said: Counts) -> bool | None:
    """The first events of a response hold the response as it is then."""
    kind = said.get("type")
    unfinished = ("response.created", "response.in_progress", "response.queued")
    return False if isinstance(kind, str) and kind in unfinished else None


def with_reasoning(units: Units, usage: Counts) -> Units:
    """Some servers report reasoning beside C{completion_tokens}, or in C{total_tokens} alone; what is missing was
    output.

    xAI's chat completions and Google's OpenAI-compatible endpoint do. Where the total is prompt and completion,
    reasoning is within. What was cached is likewise told by Moonshot and DeepSeek in members of their own.
    """
    said = number(usage.get("completion_tokens", usage.get("output_tokens")))
    total, thought = number(usage.get("total_tokens")) or 0, units.get("output_reasoning_tokens", 0)
    if said is None:
        units.pop("output_tokens", None)  # what there is of it may be the reasoning
    made = units.get("output_tokens", 0)
    if said is not None and "input_tokens" not in units and total > made:
        units["input_tokens"] = total - made
    read = units.get("input_tokens")
    if total and read is not None and total - read > made:
        made = total - read
    elif said is not None and total and made == said + thought and read is not None and total - read == said:
        made = said  # genai-prices added what was within
    elif said is not None and thought > made:
        made = thought if total else made + thought
    if made:
        units["output_tokens"] = made
    if "cache_read_tokens" not in units:
        cached = number(usage.get("cached_tokens", usage.get("prompt_cache_hit_tokens")))
        if cached:
            units["cache_read_tokens"] = cached
    beside = units.get("cache_read_tokens", 0) + units.get("cache_write_tokens", 0)
    if read is not None and beside > read:
        units["input_tokens"] = read + beside  # it cannot have been within
    return units


def made_nothing(unit: str, usage: Counts) -> bool:
    """Completions leave out their count where nothing was made, as embeddings always do."""
    given = number(usage.get("prompt_tokens"))
    return unit == "output_tokens" and given is not None and usage.get("total_tokens") == given


def _is_images(usage: Counts) -> bool:
    details = usage.get("input_tokens_details")
    return "input_tokens" in usage and isinstance(details, dict) and "image_tokens" in details and "type" not in usage


def _is_response(usage: Counts) -> bool:
    """OpenAI's input holds what was cached and gives a total; Anthropic's does neither."""
    counted = "input_tokens" in usage or "output_tokens" in usage
    return counted and (usage.get("input_tokens_details") is not None or "total_tokens" in usage)


_AUDIO_SECONDS = ((("prompt_audio_seconds",), ("audio_seconds",)),)  # Mistral's, and those who speak like it

SHAPES = (
    Shape(
        "chat",
        has_any("completion_tokens"),
        (("", "chat"), ("", "default"), ("openai", "chat")),
        _AUDIO_SECONDS,
        with_reasoning,
    ),
    Shape(
        "embeddings",
        has_any("prompt_tokens"),
        (("", "embeddings"), ("openai", "embeddings")),
        _AUDIO_SECONDS,
        leaves_out=made_nothing,
    ),
    Shape(
        "transcription",
        has_any("input_token_details", "output_token_details"),
        members=(
            (("input_tokens",), ("input_tokens",)),
            (("input_token_details", "text_tokens"), ("input_text_tokens",)),
            (("input_token_details", "audio_tokens"), ("input_audio_tokens",)),
            (("input_token_details", "image_tokens"), ("input_image_tokens",)),
            (("input_token_details", "cached_tokens"), ("cache_read_tokens",)),
            (("output_tokens",), ("output_tokens",)),
            (("output_token_details", "audio_tokens"), ("output_audio_tokens",)),
        ),
    ),
    Shape("images", _is_images, (("", "images"), ("openai", "images"))),
    Shape(
        "responses",
        _is_response,
        (("", "responses"), ("openai", "responses")),
        correct=with_reasoning,
    ),
    Shape("duration", has_any("seconds"), members=((("seconds",), ("audio_seconds",)),)),
)

_CALL: WantedMembers = {b"type": None, b"id": None, b"status": None, b"action": {b"type": None}}

SYNTAX = UsageSyntax(
    ("usage",),
    ("response",),
    other_usage_object,
    calls,
    counted_tool_calls,
    other_models,
    final,
    {
        b"output": _CALL,
        b"item": _CALL,
        b"tools": {b"type": None, b"model": None},
        b"choices": {b"usage": None},
    },
)


def is_billed(item: Counts) -> bool:
    """Whether what was found in an object of a list may tell what is billed: messages and functions do not."""
    kind = item.get("type")
    known = not isinstance(kind, str) or kind in UNITS_BY_CALL or kind == "image_generation" or _is_preview(item)
    return known and bool(item)


# What is reported later


def deferred_result_id(answer: Counts) -> str:
    """The id under which what a response announces can be fetched: a response in the background, or a batch.

    A response that is streamed says so in its first event. C{""} where the response tells all there is to tell.
    """
    events = ("response.created", "response.queued", "response.in_progress")
    inner = answer.get("response") if answer.get("type") in events else answer
    if not isinstance(inner, dict):
        return ""
    kind, name = inner.get("object"), inner.get("id")
    waits = inner.get("background") is True and inner.get("status") in ("queued", "in_progress")
    return name if isinstance(name, str) and (kind == "batch" or (kind == "response" and waits)) else ""


# Operations

CHAT = ProviderOperation(
    "chat",
    ("chat/completions",),
    takes_text=True,
    makes_text=True,
    maxima=(("max_completion_tokens",), ("max_tokens",)),
    choices=(("n",),),
    at_most=max_tool_calls,
    media=MEDIA,
)
RESPONSES = ProviderOperation(
    "responses",
    ("responses", "responses/compact"),
    takes_text=True,
    makes_text=True,
    maxima=(("max_output_tokens",),),
    at_most=max_tool_calls,
    deferred=deferred_result_id,
    deferred_in_background=True,
    also=b"output_item.done",
    media=MEDIA,
)
OPERATIONS = (
    CHAT,
    ProviderOperation(
        "completions",
        ("completions",),
        takes_text=True,
        makes_text=True,
        maxima=(("max_tokens",),),
        choices=(("n",), ("best_of",)),
        media=MEDIA,
    ),
    RESPONSES,
    ProviderOperation("embeddings", ("embeddings",), takes_text=True),
    ProviderOperation("speech", ("audio/speech",), billed_by_request=speech_units),
    ProviderOperation("transcription", ("audio/transcriptions", "audio/translations"), billed_by_request=unknown_units),
    ProviderOperation(
        "images",
        ("images/generations", "images/edits", "images/variations"),
        billed_by_request=image_units,
        at_most=max_image_units,
    ),
    ProviderOperation("video", ("videos",), billed_by_request=video_units),
    ProviderOperation(
        "video", ("videos/*/remix", "videos/edits", "videos/extensions"), billed_by_request=unknown_units
    ),
    ProviderOperation("moderation", ("moderations",), free=True),
    ProviderOperation(
        "batch",
        ("batches",),
        takes_model=False,
        billed_by_request=unknown_units,
        requests=requests_in_file,
        deferred=deferred_result_id,
    ),
    ProviderOperation("fine_tuning", ("fine_tuning/jobs",), billed_by_request=unknown_units),
    ProviderOperation("count", ("responses/input_tokens", "tokenize", "detokenize"), free=True),
    ProviderOperation(
        "storage",
        (
            *("files", "files/*", "uploads", "uploads/*", "uploads/*/parts", "uploads/*/complete", "models"),
            *("conversations", "conversations/*", "conversations/*/items", "skills", "skills/*"),
            *("vector_stores", "vector_stores/*", "vector_stores/*/files", "vector_stores/*/file_batches"),
            *("assistants", "assistants/*", "threads", "threads/*/messages", "threads/*/messages/*"),
        ),
        takes_model=False,
        free=True,
    ),
    ProviderOperation("cancel", ("cancel",), takes_model=False, free=True),
)
