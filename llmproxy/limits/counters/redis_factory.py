"""What twistd finds: counters in Redis, whose modules are imported where the settings ask for them."""

from __future__ import annotations

from collections.abc import Callable
from os import urandom
from random import random
from typing import Any

from twisted.plugin import IPlugin
from zope.interface import implementer

from llmproxy.interfaces import IBudgetStore, ICounters, ICountersFactory


@implementer(IPlugin, ICountersFactory)
class RedisCountersFactory:
    """C{limits: {backend: redis}}."""

    name = "redis"

    def counters(self, settings: Any, reactor: Any, budgets: IBudgetStore, now: Callable[[], float]) -> ICounters:
        from llmproxy.limits.counters.eviction import EvictionGuard
        from llmproxy.limits.counters.redis import RedisCounters
        from llmproxy.redis import connect

        guard = EvictionGuard(reactor, allowed=settings.limits.allow_eviction)
        url = settings.limits.redis_url
        counters: ICounters = RedisCounters(
            connect(settings.redis, reactor, random, url=url, ordered=True, use="limits", prepare=guard.prepare),
            reactor,
            budgets,
            now,
            prefix=settings.redis.key_prefix,
            lease=settings.limits.lease,
            process=urandom(9).hex(),
            guard=guard,
        )
        return counters
