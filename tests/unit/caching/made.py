"""A cache made for tests."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock

from llmproxy.cache.memory import MemoryCache
from llmproxy.caching import Caching, Contents
from llmproxy.config.model import Api, Cache, Settings
from llmproxy.interfaces import ICache

SIZE = 16 * 1024 * 1024


def settings(**told: Any) -> Settings:
    apis = {
        name: Api(base_url=f"https://{name}.test/base", allowed_endpoints=("/**",)) for name in ("openai", "anthropic")
    }
    return Settings(default_api="openai", apis=apis, cache=Cache(**told))


def contents(clock: Clock, cache: ICache | None = None, **told: Any) -> Contents:
    """A cache in memory, unless another is given, with these settings under C{cache:}."""
    kept = MemoryCache(clock, SIZE) if cache is None else cache
    return Contents(Caching(kept, settings(**told), clock, clock.seconds), "memory", SIZE)
