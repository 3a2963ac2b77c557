"""Finds what an endpoint does by its path: first as its API's provider says, then as any other, since many speak
another's words too."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

from llmproxy.metering.dialects import (
    anthropic,
    bedrock,
    generic,
    google,
    mistral,
    ollama,
    openai,
    openai_requests,
    reported_usage,
)
from llmproxy.metering.dialects.operation import UNKNOWN_OPERATION, ProviderOperation
from llmproxy.metering.dialects.reported_usage import Terms, word
from llmproxy.metering.dialects.shapes import Shape
from llmproxy.metering.json_scanner import WantedMembers

# By the providers' names in genai-prices; the order is the one in which those of others are looked through.
DIALECTS: Mapping[str, Sequence[ProviderOperation]] = {
    "openai": openai.OPERATIONS,
    "anthropic": anthropic.OPERATIONS,
    "google": google.OPERATIONS,
    "mistral": mistral.OPERATIONS,
    "aws": bedrock.OPERATIONS,
    "ollama": ollama.OPERATIONS,
    "": generic.OPERATIONS,
}


# In the order in which they are asked for a usage object that may be of several: the closer one first.
SHAPES: Sequence[Shape] = (
    *google.SHAPES,
    *bedrock.SHAPES,
    *ollama.SHAPES,
    *openai.SHAPES[:-1],
    *anthropic.SHAPES,
    *mistral.SHAPES,
    openai.SHAPES[-1],
    *generic.SHAPES,
)
SYNTAXES = (
    openai.SYNTAX,
    anthropic.SYNTAX,
    google.SYNTAX,
    mistral.SYNTAX,
    bedrock.SYNTAX,
    ollama.SYNTAX,
    generic.SYNTAX,
)
# What is looked for in a response that is too long to be kept, and in one that an event holds.
_RESPONSE_MEMBERS: WantedMembers = {
    **dict.fromkeys(
        b"type model modelVersion service_tier x_groq tool_usage prompt_eval_count eval_count done duration task "
        b"language error delta meta".split()
    ),
    **{place.encode(): None for wire in SYNTAXES for place in wire.places},
    **{name: within for wire in SYNTAXES for name, within in wire.looked_through.items()},
}
RESPONSE_MEMBERS: WantedMembers = {
    **_RESPONSE_MEMBERS,
    **{name.encode(): _RESPONSE_MEMBERS for wire in SYNTAXES for name in wire.wrappers},
}
is_billed_item = openai.is_billed
# Members of a request that tell what it uses or is billed, or what its response will be.
REQUEST_MEMBERS = frozenset(
    path[0] for operations in DIALECTS.values() for each in operations for path in (*each.maxima, *each.choices)
) | frozenset(
    (
        *(
            "model",
            "stream",
            "stream_options",
            "service_tier",
            "serviceTier",
            "speed",
            "inference_geo",
            "background",
            "tools",
            "max_tool_calls",
            "requests",
        ),
        *("input", "prompt", "n", "size", "quality", "seconds", "duration", "image", "images", "partial_images"),
    )
)

# Units that genai-prices does not know.
OWN_UNITS = frozenset(
    {
        unit
        for additional_prices in openai_requests.PRICES.values()
        for unit in additional_prices
        if not unit.endswith("_tokens")
    }
    | {"image_generations", "maps_searches", "advice", "images"}
)
_USUAL_TIERS = frozenset(("", "default", "auto", "standard", "standard_only", "on_demand", "on-demand"))
_OPENAI = ("openai", "azure")
_AUDIO_AS_TEXT = ("google", "mistral")  # where sound has no price of its own it costs what text does
# Groq bills ten seconds of sound at least. Page "Speech to text" of C{console.groq.com/docs}.
_LEAST_BILLED = {("groq", "whisper"): {"audio_seconds": 10.0, "input_audio_seconds": 10.0}}


@cache
def additional_prices(provider: str, model: str) -> Mapping[str, float]:
    """USD for one of each unit of a model that genai-prices has no price for."""
    found: dict[str, float] = {}
    for glob, units in openai_requests.PRICES.items() if provider in _OPENAI else ():
        if fnmatchcase(model, glob):
            found = {**units, **found}
    return found


def price_contexts(provider: str, terms: Terms) -> Sequence[Mapping[str, str]]:
    """The kinds of request as which one is priced, in the words of genai-prices, the closest first; empty: the usual.

    C{flex} costs what a batch does, with OpenAI (guide "Flex processing") and Google (guide "Optimization") alike.
    """
    if terms.batch:
        return [{"processing": "batch"}]
    if terms.speed not in ("", "standard"):
        return [{"speed": terms.speed}]
    tier = google.TIERS.get(terms.tier, terms.tier) if provider == "google" else terms.tier
    if tier in _USUAL_TIERS or (provider == "groq" and tier in ("flex", "performance")):
        return []
    words = [{"service_tier": tier}]
    return [*words, {"processing": "batch"}] if tier == "flex" and provider in (*_OPENAI, "google") else words


_TERMS_MEMBERS = frozenset(("service_tier", "serviceTier", "speed", "inference_geo"))
_USUAL_ONLY = (Terms(),)


def possible_terms(provider: str, members: Mapping[str, Any]) -> Sequence[Terms]:
    """The terms that a request may be answered with: the usual ones, and those that it asks for, should they differ."""
    if _TERMS_MEMBERS.isdisjoint(members):
        return _USUAL_ONLY
    tier = word(members.get("service_tier")) or word(members.get("serviceTier"))
    asked = Terms(tier.lower(), word(members.get("speed")), word(members.get("inference_geo")))
    if asked.tier == "flex" or not price_contexts(provider, Terms(asked.tier)):
        asked = asked._replace(tier="")  # not dearer than the usual
    return (Terms(),) if asked == Terms() else (Terms(), asked)


def token_price_factor(provider: str, terms: Terms) -> float | None:
    """What the price of tokens is multiplied by; C{None} where that is not known."""
    return anthropic.GEO_FACTORS.get(terms.geo) if provider == "anthropic" else 1.0


def least_billed(provider: str, model: str) -> Mapping[str, float]:
    """What is billed at least, by unit."""
    return next(
        (units for (home, name), units in _LEAST_BILLED.items() if home == provider and model.startswith(name)), {}
    )


def bills_audio_as_text(provider: str, model: str, unit: str) -> bool:
    """Whether sound without a price of its own costs what text does: elsewhere its price is not known then."""
    return provider in _AUDIO_AS_TEXT or (unit.startswith("output_") and "tts" in model)


def provider_charge(provider: str, usage: Mapping[str, Any]) -> float | None:
    """USD that a provider says it charged; C{None} where it says nothing."""
    known = generic.CHARGES.get(provider)
    return None if known is None else known(usage)


extract = reported_usage.UsageExtractorChain(SYNTAXES).read


def operation(provider: str, path: bytes) -> ProviderOperation:
    """What a POST to C{path} does; L{UNKNOWN_OPERATION} where nobody knows.

    @param provider: The provider's name in genai-prices, or C{""}.
    @param path: As it was sent, without the query, whatever its beginning.
    """
    own = _TABLES.get(provider, ())
    return next((known for pattern, known in (*own, *_EVERYBODY) if pattern.search(path)), UNKNOWN_OPERATION)


def _table(operations: Sequence[ProviderOperation]) -> list[tuple[re.Pattern[bytes], ProviderOperation]]:
    """Longest first: C{responses/input_tokens} is not C{input_tokens} of anybody."""
    patterns = [(_pattern(path), len(path), each) for each in operations for path in each.paths]
    return [(pattern, each) for pattern, _, each in sorted(patterns, key=lambda found: -found[1])]


def _pattern(path: str) -> re.Pattern[bytes]:
    return re.compile(rb"/" + re.escape(path.encode()).replace(rb"\*", rb"[^/]+") + rb"/?$")


_TABLES = {provider: _table(operations) for provider, operations in DIALECTS.items() if provider}
_EVERYBODY = _table([each for operations in DIALECTS.values() for each in operations])
