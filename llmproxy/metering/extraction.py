"""Finds what was used in a provider's own words: an answer or an event, as parsed JSON, to counts by unit.

Which member of a usage object counts what is C{genai-prices}' knowledge; only what it does not know is written here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import groupby
from typing import Any, NamedTuple

from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ArrayMatch, UsageExtractor

Units = dict[str, int | float]

GREATEST = 2**53  # what JSON readers of every kind agree on; a count beyond it is none

LONGEST = 128  # characters of a model's name

# Where an event keeps the answer that it tells of: responses, Anthropic's messages, Gemini's interactions.
_WRAPPED = ("response", "message", "interaction")
_PLACES = ("usage", "usageMetadata", "usage_info", "amazon-bedrock-invocationMetrics")

# Usage objects that genai-prices has no words for: member, and the units it counts.
_OWN: Mapping[str, tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]] = {
    "transcription": (
        (("input_tokens",), ("input_tokens",)),
        (("input_token_details", "text_tokens"), ("input_text_tokens",)),
        (("input_token_details", "audio_tokens"), ("input_audio_tokens",)),
        (("output_tokens",), ("output_tokens",)),
    ),
    "duration": ((("seconds",), ("audio_seconds",)),),
    "interactions": (
        (("total_input_tokens",), ("input_tokens",)),
        (("total_tool_use_tokens",), ("input_tokens",)),
        (("total_cached_tokens",), ("cache_read_tokens",)),
        (("total_output_tokens",), ("output_tokens",)),
        (("total_thought_tokens",), ("output_tokens", "output_reasoning_tokens")),
    ),
    "invocation": (
        (("inputTokenCount",), ("input_tokens",)),
        (("cacheReadInputTokenCount",), ("input_tokens", "cache_read_tokens")),
        (("cacheWriteInputTokenCount",), ("input_tokens", "cache_write_tokens")),
        (("outputTokenCount",), ("output_tokens",)),
    ),
    "total": ((("total_tokens",), ("input_tokens",)),),
}


class Told(NamedTuple):
    """What one answer or event said of its usage, in the provider's words.

    @ivar usage: The usage object, or C{None}.
    @ivar tier: The service tier that it was answered with, or C{""}; C{speed} likewise.
    @ivar final: Whether the counts can no longer change; C{None}: if the answer came to its end.
    """

    usage: Mapping[str, Any] | None = None
    model: str = ""
    tier: str = ""
    speed: str = ""
    final: bool | None = None


NOTHING = Told()


def told(said: Any, whole: bool = False) -> Told:
    """What C{said} tells, which is parsed JSON of any shape.

    @param whole: Whether it is an answer, and not one of several that follow one another.
    """
    if not isinstance(said, dict):
        return NOTHING
    answer, usage = said, _usage(said)
    if usage is None:
        for name in _WRAPPED:
            inner = said.get(name)
            if isinstance(inner, dict):
                answer, usage = inner, _usage(inner)
                break
    model = answer.get("model") or answer.get("modelVersion")
    tier = answer.get("service_tier")
    if usage is None:
        return Told(None, _word(model), _word(tier))
    tier, speed = tier or usage.get("service_tier"), usage.get("speed")
    return Told(usage, _word(model), _word(tier), _word(speed), True if whole else _final(said))


def merged(before: Told, after: Told) -> Told:
    """What two events of a stream tell together: counts are of all so far, and some are told only once."""
    if before is NOTHING:
        return after
    usage = before.usage
    if after.usage is not None:
        usage = {**(usage or {}), **{name: value for name, value in after.usage.items() if value is not None}}
    return Told(
        usage,
        after.model or before.model,
        after.tier or before.tier,
        after.speed or before.speed,
        before.final if after.usage is None else after.final,
    )


def _final(said: Mapping[str, Any]) -> bool | None:
    kind, choices, candidates = said.get("type"), said.get("choices"), said.get("candidates")
    if kind == "message_start":
        return False
    if isinstance(kind, str) and kind in ("response.created", "response.in_progress", "response.queued"):
        return False
    if isinstance(choices, list) and choices:
        return True if any(isinstance(c, dict) and c.get("finish_reason") for c in choices) else None
    if isinstance(candidates, list):
        return True if any(isinstance(c, dict) and c.get("finishReason") for c in candidates) else None
    return None if "usageMetadata" in said else True


def _word(given: Any) -> str:
    """A name that can be shown and kept; any other is none."""
    return given if isinstance(given, str) and len(given) <= LONGEST and given.isprintable() else ""


def flavour(usage: Mapping[str, Any]) -> str:
    """In whose words a usage object is, told by the members that it has."""
    if "prompt_tokens" in usage or "completion_tokens" in usage:
        return "chat" if "completion_tokens" in usage else "embeddings"
    if "input_tokens" in usage or "output_tokens" in usage:
        details = usage.get("input_tokens_details")
        if "input_token_details" in usage:
            return "transcription"
        if isinstance(details, dict) and "image_tokens" in details:
            return "images"
        # OpenAI's input holds what was cached and gives a total; Anthropic's does neither.
        return "responses" if details is not None or "total_tokens" in usage else "messages"
    if "promptTokenCount" in usage or "totalTokenCount" in usage or "candidatesTokenCount" in usage:
        return "gemini"
    for member, name in (
        ("inputTokens", "converse"),
        ("inputTokenCount", "invocation"),
        ("total_input_tokens", "interactions"),
        ("pages_processed", "ocr"),
        ("seconds", "duration"),
        ("total_tokens", "total"),
    ):
        if member in usage:
            return name
    return ""


def count(usage: Mapping[str, Any], provider: str = "") -> Units | None:
    """The counts that stand in a usage object; C{None} where there is none that can be believed.

    @param provider: The provider's name in genai-prices, or C{""}.
    """
    units: Units = {}
    for path, destinations in mappings(flavour(usage), provider):
        value: Any = usage
        for step in path:
            if step.__class__ is str:
                value = value.get(step) if isinstance(value, dict) else None
            else:
                value = step.extract(value) if isinstance(value, list) and _sound(value, step.field) else None
            if value is None:
                break
        else:
            if (value.__class__ is int or value.__class__ is float) and 0 <= value <= GREATEST:
                for unit in destinations:
                    units[unit] = units.get(unit, 0) + value
    return units or None


@cache
def mappings(flavour: str, provider: str) -> tuple[tuple[tuple[Any, ...], tuple[str, ...]], ...]:
    """Paths into a usage object, each with the units that what stands there counts for."""
    if flavour in _OWN:
        return _OWN[flavour]
    extractor = _extractor(flavour, provider)
    if extractor is None:
        return ()
    pairs = [(_steps(mapping.path), mapping.dest) for mapping in extractor.mappings]
    return tuple((path, tuple(dest for _, dest in found)) for path, found in groupby(_sorted(pairs), lambda p: p[0]))


def known_provider(name: str) -> bool:
    """Whether genai-prices knows a provider of that name."""
    return any(provider.id == name for provider in get_snapshot().providers)


def _usage(told: Mapping[str, Any]) -> dict[str, Any] | None:
    return next((found for place in _PLACES if isinstance(found := told.get(place), dict)), None)


def _sound(items: Sequence[Any], field: str) -> bool:
    """Whether genai-prices may look for its item here: it takes what it looks at for text without asking."""
    return len(items) < 100 and all(isinstance(i, dict) and isinstance(i.get(field, ""), str) for i in items)


def _extractor(flavour: str, provider: str) -> UsageExtractor | None:
    """The provider's own way to tell, or that of those who everybody follows."""
    homes = {
        "chat": (provider, "chat", provider, "default", "openai", "chat"),
        "embeddings": (provider, "embeddings", "openai", "embeddings"),
        "responses": (provider, "responses", "openai", "responses"),
        "images": (provider, "images", "openai", "images"),
        "messages": ("anthropic", "default"),
        "gemini": ("google", "default"),
        "converse": ("aws", "default"),
        "ocr": ("mistral", "ocr"),
    }.get(flavour, ())
    for home, name in zip(homes[::2], homes[1::2], strict=True):
        for known in get_snapshot().providers:
            for extractor in (known.extractors or ()) if known.id == home else ():
                if extractor.api_flavor == name and (flavour != "chat" or _counts_prompts(extractor)):
                    return extractor
    return None


def _counts_prompts(extractor: UsageExtractor) -> bool:
    """Whether this reads OpenAI's chat words, in C{usage} itself."""
    return extractor.root in ("usage", ["usage"]) and any(m.path == "prompt_tokens" for m in extractor.mappings)


def _steps(path: str | Sequence[str | ArrayMatch]) -> tuple[Any, ...]:
    return (path,) if isinstance(path, str) else tuple(path)


def _sorted(pairs: list[tuple[tuple[Any, ...], str]]) -> list[tuple[tuple[Any, ...], str]]:
    """Those with the same path next to each other, else in their order."""
    first = [path for path, _ in pairs]
    return sorted(pairs, key=lambda pair: first.index(pair[0]))
