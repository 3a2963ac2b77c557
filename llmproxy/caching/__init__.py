"""The response cache: what is kept is given again, and what is being fetched is fetched once."""

from llmproxy.caching.admin import CacheAdmin, PurgeSelector
from llmproxy.caching.broadcast import Subscriber
from llmproxy.caching.collapsing import Fetch
from llmproxy.caching.draining import DiscardBody
from llmproxy.caching.lookup import CacheLookup
from llmproxy.caching.replay import CachedResponse
from llmproxy.caching.service import ResponseCache

__all__ = [
    "CacheAdmin",
    "CacheLookup",
    "CachedResponse",
    "DiscardBody",
    "Fetch",
    "PurgeSelector",
    "ResponseCache",
    "Subscriber",
]
