"""How many tokens a model can read at once."""

from __future__ import annotations

from functools import lru_cache

from genai_prices.data_snapshot import get_snapshot

MAX_CONTEXT_TOKENS = 2_000_000  # tokens of input where a model's context window is not known


@lru_cache(4096)  # only clients that make up models get there
def context_window(provider: str, model: str) -> int:
    """Tokens of input that a model can read, going by genai-prices.

    @param provider: The provider's name there.
    """
    everyone = get_snapshot().providers
    known = next((each for each in everyone if each.id == provider), None)
    found = known.find_model(model, all_providers=everyone) if known is not None and model else None
    return (found.context_window if found is not None else None) or MAX_CONTEXT_TOKENS
