"""What other servers have beside OpenAI's words: reranking, Cohere's chat, and what they say that they charged.

Facts: C{docs.cohere.com/reference/chat}, C{docs.x.ai/developers/cost-tracking},
C{openrouter.ai/docs/use-cases/usage-accounting}, C{docs.perplexity.ai/api-reference}, as of November 2026.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from llmproxy.base.budgets import MOST_USD
from llmproxy.metering.dialects.operation import ProviderOperation, no_further_units
from llmproxy.metering.dialects.reported_usage import Counts, UsageSyntax
from llmproxy.metering.dialects.shapes import Shape, has_any, number


def other_usage_object(answer: Counts) -> Counts | None:
    """Cohere reports the usage in C{meta}, and at the end of a stream in C{delta}."""
    for place, name in (("delta", "usage"), ("meta", "billed_units")):
        inner = answer.get(place)
        found = inner.get(name) if isinstance(inner, dict) else None
        if isinstance(found, dict) and found:
            return found
    return None


def bills_searches(unit: str, usage: Counts) -> bool:
    """What is billed by the search has no tokens of input."""
    billed = usage.get("billed_units", usage)
    return unit == "input_tokens" and isinstance(billed, dict) and number(billed.get("search_units")) is not None


SHAPES = (
    Shape(
        "cohere",
        has_any("billed_units"),
        members=(
            (("billed_units", "input_tokens"), ("input_tokens",)),
            (("billed_units", "output_tokens"), ("output_tokens",)),
            (("billed_units", "search_units"), ("rerank_searches",)),
            (("cached_tokens",), ("cache_read_tokens",)),
        ),
        leaves_out=bills_searches,
    ),
    Shape(
        "rerank",
        has_any("search_units"),
        members=((("search_units",), ("rerank_searches",)),),
        leaves_out=bills_searches,
    ),
    Shape("total", has_any("total_tokens"), members=((("total_tokens",), ("input_tokens",)),)),
)

SYNTAX = UsageSyntax(elsewhere=other_usage_object)


_TICKS = 1e10  # of x.ai, in a dollar


def _xai(usage: Counts) -> float | None:
    ticks = number(usage.get("cost_in_usd_ticks"), MOST_USD * _TICKS)
    return None if ticks is None else ticks / _TICKS


def _openrouter(usage: Counts) -> float | None:
    """Credits are dollars; with a key of one's own for the provider behind, that one charges too."""
    cost, details = number(usage.get("cost"), MOST_USD), usage.get("cost_details")
    if cost is None:
        return None
    behind = number(details.get("upstream_inference_cost"), MOST_USD) if isinstance(details, dict) else None
    return cost + (behind or 0.0) if usage.get("is_byok") is True else cost


def _perplexity(usage: Counts) -> float | None:
    cost = usage.get("cost")
    return number(cost.get("total_cost"), MOST_USD) if isinstance(cost, dict) else None


# Providers that say what they charged, by their names in genai-prices; it goes before any list.
CHARGES: Mapping[str, Callable[[Counts], float | None]] = {
    "x-ai": _xai,
    "openrouter": _openrouter,
    "perplexity": _perplexity,
}

OPERATIONS = (
    ProviderOperation("chat", ("v1/chat", "v2/chat"), takes_text=True, makes_text=True, maxima=(("max_tokens",),)),
    ProviderOperation(
        "infill",
        ("infill", "completion"),
        takes_text=True,
        makes_text=True,
        maxima=(("n_predict",), ("max_tokens",)),
        takes_model=False,
    ),
    ProviderOperation(
        "generate",
        ("generate", "generate_stream"),
        takes_text=True,
        makes_text=True,
        maxima=(("parameters", "max_new_tokens"),),
        takes_model=False,
    ),
    ProviderOperation("rerank", ("rerank",), takes_text=True, billed_by_request=no_further_units),
    ProviderOperation("score", ("score", "classify", "pooling"), takes_text=True, billed_by_request=no_further_units),
)
