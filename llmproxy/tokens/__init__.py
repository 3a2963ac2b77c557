"""Whom a token belongs to, remembered for a moment; and how often it was used, counted in batches."""

from llmproxy.tokens.cached import CachedTokenValidator

__all__ = ["CachedTokenValidator"]
