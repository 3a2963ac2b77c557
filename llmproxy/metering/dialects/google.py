"""Gemini's API and Vertex AI's: C{models/NAME:verb}.

Facts: C{ai.google.dev/api} and C{ai.google.dev/gemini-api/docs/pricing}.
"""

from __future__ import annotations

from llmproxy.metering.dialects.operation import MediaTokens, Members, ProviderOperation, Units, unknown_units
from llmproxy.metering.dialects.reported_usage import Call, Counts, UsageSyntax
from llmproxy.metering.dialects.shapes import Shape, has_any, left_out, number, without_doubtful
from llmproxy.metering.json_scanner import WantedMembers

# Pictures: 258 tokens a tile (Gemini 2), up to 1,120 in high and 2,240 in ultra-high resolution (Gemini 3); sound 32 a
# second, films 263 to 300 a second, pages as pictures. Guides "Token counting" and "Media resolution", November 2026.
MEDIA = MediaTokens(image=2240, page=1120, audio_second=32, video_second=300)

_GENERATION = ("generationConfig", "generation_config")

MAX_SEARCHES = 10  # queries of one request; how many a model makes cannot be bounded by it


def max_tool_calls(model: str, members: Members) -> Units | None:
    """The searches that a request allows: one for each query (Gemini 3 and later) or for the prompt (before)."""
    units: Units = {}
    tools = members.get("tools")
    for tool in tools if isinstance(tools, list) else ():
        names = tool.keys() if isinstance(tool, dict) else ()
        if any(
            name in names
            for name in ("googleSearch", "google_search", "googleSearchRetrieval", "google_search_retrieval")
        ):
            units["web_searches"] = 1 if _bills_prompts(model) else MAX_SEARCHES
        if "googleMaps" in names or "google_maps" in names:
            units["maps_searches"] = 1
    return units


def _bills_prompts(model: str) -> bool:
    return model.startswith(("gemini-1", "gemini-2", "gemini-live-2"))


_NONE: frozenset[Call] = frozenset()


def calls(said: Counts, answer: Counts) -> frozenset[Call]:
    """Searches that grounded a response: C{groundingMetadata} of its candidates.

    Billed for each query with Gemini 3 and later, once for a prompt before. Price page, "Grounding with Google Search";
    what a project has free each month is not taken off.
    """
    candidates = answer.get("candidates")
    if candidates is None:
        return _NONE
    found: set[Call] = set()
    for candidate in candidates if isinstance(candidates, list) else ():
        grounding = candidate.get("groundingMetadata") if isinstance(candidate, dict) else None
        if not isinstance(grounding, dict):
            continue
        queries = grounding.get("webSearchQueries")
        for query in queries if isinstance(queries, list) else ():
            model = answer.get("modelVersion")
            once = isinstance(model, str) and _bills_prompts(model)
            found.add(("web_searches", "prompt" if once or not isinstance(query, str) else query))
        chunks = grounding.get("groundingChunks")
        if isinstance(chunks, list) and any(isinstance(chunk, dict) and "maps" in chunk for chunk in chunks):
            found.add(("maps_searches", "prompt"))
    return frozenset(found)


def with_total(units: Units, usage: Counts) -> Units:
    """What is missing is the rest of the total. No output at all is left out, as protocol buffers do with zeros."""
    made, total = usage.get("candidatesTokenCount"), number(usage.get("totalTokenCount")) or 0
    without_doubtful(units, usage, input_tokens="promptTokenCount")
    if made is not None:
        without_doubtful(units, usage, output_tokens="candidatesTokenCount")
    output = units.get("output_tokens", 0)
    if "input_tokens" in units:
        rest = total - units["input_tokens"]
        if rest > output and number(made) is None:
            units["output_tokens"] = rest
    elif total > output and ("output_tokens" in units or made is None):
        units["input_tokens"] = total - output
    return units


def without_doubt(units: Units, usage: Counts) -> Units:
    """The counts of an interaction, whose tools and thoughts have members of their own."""
    without_doubtful(units, usage, input_tokens="total_input_tokens")
    if usage.get("total_output_tokens") is not None:
        without_doubtful(units, usage, output_tokens="total_output_tokens")
    return units


SHAPES = (
    Shape(
        "gemini",
        has_any("promptTokenCount", "totalTokenCount", "candidatesTokenCount"),
        (("google", "default"),),
        correct=with_total,
        leaves_out=left_out(output_tokens="candidatesTokenCount"),
    ),
    Shape(
        "interactions",
        has_any("total_input_tokens"),
        members=(
            (("total_input_tokens",), ("input_tokens",)),
            (("total_tool_use_tokens",), ("input_tokens",)),
            (("total_cached_tokens",), ("cache_read_tokens",)),
            (("total_output_tokens",), ("output_tokens",)),
            (("total_thought_tokens",), ("output_tokens", "output_reasoning_tokens")),
        ),
        correct=without_doubt,
        leaves_out=left_out(output_tokens="total_output_tokens"),
    ),
)

_GROUNDING: WantedMembers = {b"webSearchQueries": None, b"groundingChunks": {b"maps": {}}}

SYNTAX = UsageSyntax(
    ("usageMetadata", "usage"),
    ("interaction",),
    calls=calls,
    looked_through={b"candidates": {b"groundingMetadata": _GROUNDING}},
)

# How a tier is called where it is answered: on the Gemini API, and on Vertex AI as C{trafficType}.
TIERS = {
    "service_tier_standard": "",
    "service_tier_flex": "flex",
    "service_tier_priority": "priority",
    "on_demand": "",
    "on_demand_flex": "flex",
    "on_demand_priority": "priority",
    "traffic_type_unspecified": "",
    "service_tier_unspecified": "",
    "unspecified": "",
}


def deferred_result_id(answer: Counts) -> str:
    """The id of a batch that a response announces: C{name} without C{batches/}. Guide "Batch API"."""
    name = answer.get("name")
    return name.removeprefix("batches/") if isinstance(name, str) and name.startswith("batches/") else ""


GENERATE = ProviderOperation(
    "generate",
    ("*:generateContent", "*:streamGenerateContent"),
    takes_text=True,
    makes_text=True,
    maxima=tuple((config, name) for config in _GENERATION for name in ("maxOutputTokens", "max_output_tokens")),
    choices=tuple((config, name) for config in _GENERATION for name in ("candidateCount", "candidate_count")),
    at_most=max_tool_calls,
    also=b"webSearchQueries",
    mark=b"usageMetadata",
    media=MEDIA,
)

OPERATIONS = (
    GENERATE,
    ProviderOperation("embeddings", ("*:embedContent", "*:batchEmbedContents"), takes_text=True, media=MEDIA),
    ProviderOperation("count", ("*:countTokens", "*:computeTokens"), free=True),
    ProviderOperation("predict", ("*:predict", "*:predictLongRunning"), billed_by_request=unknown_units),
    ProviderOperation(
        "batch",
        ("*:batchGenerateContent", "*:asyncBatchEmbedContent"),
        billed_by_request=unknown_units,
        deferred=deferred_result_id,
    ),
    # Anthropic's and Mistral's models on Vertex AI take those providers' own words.
    ProviderOperation(
        "raw",
        ("*:rawPredict", "*:streamRawPredict"),
        takes_text=True,
        makes_text=True,
        maxima=(("max_tokens",),),
        choices=(("n",),),
        media=MediaTokens(image=4784, page=4600),
    ),
    ProviderOperation(
        "interactions",
        ("interactions",),
        takes_text=True,
        makes_text=True,
        maxima=(("generation_config", "max_output_tokens"),),
        media=MEDIA,
    ),
    ProviderOperation("storage", ("files", "files:register", "fileSearchStores"), takes_model=False, free=True),
)
