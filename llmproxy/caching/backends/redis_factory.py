"""What twistd finds: the cache in Redis, whose modules are imported where the settings ask for it."""

from __future__ import annotations

from typing import Any

from twisted.plugin import IPlugin
from zope.interface import implementer

from llmproxy.config.model import Settings
from llmproxy.interfaces import ICache, ICacheFactory


@implementer(IPlugin, ICacheFactory)
class RedisCacheFactory:
    """C{cache: {backend: redis}}"""

    name = "redis"

    def cache(self, settings: Settings, reactor: Any) -> ICache:
        from llmproxy.caching.backends.redis import RedisCache
        from llmproxy.redis import connect

        redis = connect(settings.redis, reactor, url=settings.cache.redis_url, use="the cache")
        cache: ICache = RedisCache(redis, settings.redis.key_prefix, reactor)
        return cache
