"""The response cache: what is stored is served again, and what is in flight is fetched once."""

from llmproxy.caching.admin import CacheAdmin, PurgeSelector
from llmproxy.caching.broadcast import Subscriber
from llmproxy.caching.lookup import CacheLookup, CacheOutcome, Fetch, LocalHit, RepeatableHit
from llmproxy.caching.replay import CachedResponse
from llmproxy.caching.rules.request import CacheRequest
from llmproxy.caching.service import ResponseCache

__all__ = [
    "CacheAdmin",
    "CacheLookup",
    "CacheOutcome",
    "CacheRequest",
    "CachedResponse",
    "Fetch",
    "LocalHit",
    "PurgeSelector",
    "RepeatableHit",
    "ResponseCache",
    "Subscriber",
]
