"""OpenAI's API, which most servers speak: chat, responses, embeddings, speech, pictures, films, batches.

Facts: C{developers.openai.com/api/reference}, the types of openai-python 3.54, and the price page
C{developers.openai.com/api/docs/pricing}, as of November 2026; the prices in L{PRICES} were
read in copies of that page.
"""

from __future__ import annotations

from collections.abc import Mapping

from llmproxy.metering.dialects.operation import (
    MediaTokens,
    Members,
    ProviderOperation,
    Units,
    requests_in_file,
    unknown_units,
    whole_number,
    word,
)
from llmproxy.metering.dialects.reported_usage import Call, Counts, UsageSyntax
from llmproxy.metering.dialects.shapes import Shape, has_any, number

# Pictures: at most 85 + 8 x 170 tokens by tiles (gpt-4o), 1,536 patches x 2.46 (gpt-4.1-nano), 10,000 patches where
# the detail is "original" (gpt-5.4 and later); 2,500 covers all but the last and gpt-4o-mini, which counts its pictures
# 33 times at a 17th of the price. Guide "Images and vision".
MEDIA = MediaTokens(image=2500, page=3000, audio_second=10, video_second=300)

# What the list of genai-prices has no price for: USD each, by model and unit. Price page, sections "Image generation",
# "Video" and "Audio" (the previews' page "gpt-4o-audio-preview"), and "Built-in tools": a search of the preview tool
# costs 25 dollars a thousand with models that do not reason, 10 with those that do.
PRICES: Mapping[str, Mapping[str, float]] = {
    "dall-e-3": {
        "images_standard_1024x1024": 0.04,
        "images_standard_1024x1792": 0.08,
        "images_standard_1792x1024": 0.08,
        "images_hd_1024x1024": 0.08,
        "images_hd_1024x1792": 0.12,
        "images_hd_1792x1024": 0.12,
    },
    "dall-e-2": {
        "images_standard_1024x1024": 0.02,
        "images_standard_512x512": 0.018,
        "images_standard_256x256": 0.016,
    },
    "sora-2": {"video_seconds_720x1280": 0.10, "video_seconds_1280x720": 0.10},
    "sora-2-pro": {
        "video_seconds_720x1280": 0.30,
        "video_seconds_1280x720": 0.30,
        "video_seconds_1024x1792": 0.50,
        "video_seconds_1792x1024": 0.50,
    },
    "gpt-4o-audio-preview*": {"input_audio_tokens": 40e-6, "output_audio_tokens": 80e-6},
    "gpt-4o-mini-audio-preview*": {"input_audio_tokens": 10e-6, "output_audio_tokens": 20e-6},
    "gpt-4o-search-preview*": {"web_search_previews": 0.025},
    "gpt-4o-mini-search-preview*": {"web_search_previews": 0.025},
    "gpt-5-search-api*": {"web_search_previews": 0.01},
    "gpt-4*": {"web_search_previews": 0.025},
    "gpt-5*": {"web_search_previews": 0.01},
    "gpt-6*": {"web_search_previews": 0.01},
    "o[0-9]*": {"web_search_previews": 0.01},
}

# Tokens of output of one picture at most: quality "high" by size (guide "Image generation", cost and latency), and 100
# for each partial picture.
_PICTURE_TOKENS = {"1024x1024": 4160, "1024x1536": 6240, "1536x1024": 6208, "auto": 6240}
_MAX_PICTURES_READ = 16
_PICTURE_READ_TOKENS = 6500
MAX_CALLS_PER_TOOL = 10  # of a tool, where a request sets no C{max_tool_calls}; models rarely make more than three

UNITS_BY_CALL = {
    "web_search_call": "web_searches",
    "file_search_call": "storage_searches",
    "code_interpreter_call": "code_executions",  # by the minute of its container, which no answer tells
    "shell_call": "code_executions",
}
_UNITS_BY_TOOL = {
    "web_search": "web_searches",
    "web_search_preview": "web_search_previews",
    "file_search": "storage_searches",
    "code_interpreter": "code_executions",
    "shell": "code_executions",
    "image_generation": "image_generations",  # whose tokens have no bound
}


# Requests


def speech_units(model: str, members: Members) -> Units | None:
    """Speech is billed by the characters of its input; models that count tokens do not tell them."""
    said = members.get("input")
    return {"input_characters": len(said)} if model.startswith("tts-") and isinstance(said, str) else None


def image_units(model: str, members: Members) -> Units | None:
    """DALL-E bills each picture by size and quality; all others bill tokens, which their answers tell."""
    count = whole_number(members.get("n", 1))
    if not model.startswith("dall-e") or count is None:
        return None
    size = word(members.get("size"), "1024x1024")
    quality = "standard" if model == "dall-e-2" else word(members.get("quality"), "standard")
    return {f"images_{'standard' if quality == 'auto' else quality}_{size}": max(count, 1)}


def max_image_units(model: str, members: Members) -> Units | None:
    """The tokens of gpt-image's pictures are bounded by their size."""
    count, partial = whole_number(members.get("n", 1)), whole_number(members.get("partial_images", 0))
    made = _PICTURE_TOKENS.get(word(members.get("size"), "auto"))
    if not model.startswith(("gpt-image-1", "chatgpt-image")) or count is None or partial is None or made is None:
        return image_units(model, members)
    prompt = members.get("prompt")
    text = len(prompt.encode()) if isinstance(prompt, str) else 0
    read = _MAX_PICTURES_READ * _PICTURE_READ_TOKENS if "image" in members or "images" in members or not prompt else 0
    return {
        "input_tokens": text + read,
        "input_image_tokens": read,
        "output_tokens": max(count, 1) * made + 100 * partial,
    }


def video_units(model: str, members: Members) -> Units | None:
    """Films are billed by the second, by their size."""
    seconds = whole_number(members.get("seconds", 4))
    return None if seconds is None else {f"video_seconds_{word(members.get('size'), '720x1280')}": seconds}


def max_tool_calls(model: str, members: Members) -> Units | None:
    """Calls of the provider's own tools that a request allows, at most."""
    units: Units = {}
    if _searches_always(model):
        units["web_search_previews"] = 1
    tools = members.get("tools")
    if not isinstance(tools, list):
        return units
    most = whole_number(members.get("max_tool_calls"))
    for tool in tools:
        kind = tool.get("type") if isinstance(tool, dict) else None
        name = next((name for name in _UNITS_BY_TOOL if kind == name or _is_dated(kind, name)), None)
        if name is not None:
            units[_UNITS_BY_TOOL[name]] = MAX_CALLS_PER_TOOL if most is None else most
    return units


def _is_dated(kind: object, name: str) -> bool:
    """Whether this is a version of a tool, such as C{web_search_preview_2025_03_11}."""
    return isinstance(kind, str) and kind.startswith(name + "_") and kind[len(name) + 1 :].replace("_", "").isdigit()


def _searches_always(model: str) -> bool:
    return "-search-preview" in model or "-search-api" in model


# Answers


def other_usage_object(answer: Counts) -> Counts | None:
    """Moonshot tells a stream's usage in the first of the choices, Groq in an object of its own name."""
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
    always = isinstance(model, str) and "-search-" in model and "choices" in answer and _searches_always(model)
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
    """Some servers tell reasoning beside C{completion_tokens}, or in C{total_tokens} alone; what is missing was output.

    xAI's chat completions and Google's OpenAI-compatible endpoint do. Where the total is prompt and completion,
    reasoning is within. What was cached is likewise told by Moonshot and DeepSeek in members of their own.
    """
    read, made = units.get("input_tokens", 0), units.get("output_tokens", 0)
    said = number(usage.get("completion_tokens", usage.get("output_tokens"))) or 0
    total, thought = number(usage.get("total_tokens")), units.get("output_reasoning_tokens", 0)
    if total and total - read > made:
        made = total - read
    elif total and made == said + thought and total - read == said:
        made = said  # genai-prices added what was within
    elif thought > made:
        made = thought if total else made + thought
    if made:
        units["output_tokens"] = made
    if "cache_read_tokens" not in units:
        cached = number(usage.get("cached_tokens", usage.get("prompt_cache_hit_tokens")))
        if cached:
            units["cache_read_tokens"] = cached
    beside = units.get("cache_read_tokens", 0) + units.get("cache_write_tokens", 0)
    if beside > read:
        units["input_tokens"] = read + beside  # it cannot have been within
    return units


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
    Shape("embeddings", has_any("prompt_tokens"), (("", "embeddings"), ("openai", "embeddings")), _AUDIO_SECONDS),
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

SYNTAX = UsageSyntax(("usage",), ("response",), other_usage_object, calls, counted_tool_calls, other_models, final)


# What is told later


def deferred_result_id(answer: Counts) -> str:
    """The id under which what an answer announces can be fetched: a response in the background, or a batch.

    A response that is streamed says so in its first event. C{""} where the answer tells all there is to tell.
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
