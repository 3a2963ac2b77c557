"""What an operator sees of the cache, and removes from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from llmproxy import errors
from llmproxy.base.peers import Peers
from llmproxy.caching.keys import cache_key, key_of_target, key_prefix
from llmproxy.caching.service import ResponseCache

PURGE = "cache.purge"
STANDING = "cache.standing"


@dataclass(frozen=True, slots=True)
class PurgeSelector:
    """What is to be removed. Everything that is left out means all of it.

    @ivar token_id: With C{scope: token}, whose responses.
    @ivar path: Path and query, exactly, as clients send them to the API; C{prefix}: what they begin with.
    @ivar method: With C{path}, of which method; C{headers} and C{body} (both, or none): of exactly which request.
    """

    api: str = ""
    project_id: str = ""
    token_id: str = ""
    path: str = ""
    prefix: str = ""
    method: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str | None = None


class CacheStanding(NamedTuple):
    """What the cache holds, and what it does.

    @ivar size: Bytes that it holds, of C{limit}; C{evicted}: entries that had to go for want of room.
    @ivar stores: Responses that were put there; C{in_flight}: calls to providers that further requests can join.
    """

    entries: int
    size: int
    evicted: int
    limit: int
    stores: int
    in_flight: int


class CacheAdmin:
    """A L{ResponseCache} and its counters, for those who manage it."""

    def __init__(self, caching: ResponseCache, backend: str, limit: int, peers: Peers | None = None) -> None:
        """
        @param peers: Other workers, which are to remove from their caches what is removed here.
        @param limit: Bytes that the backend may hold; C{0} where that is not for this process to say.
        """
        self.caching = caching
        self.backend = backend
        self.limit = limit
        self._peers = peers or Peers()
        self._peers.register(PURGE, self._purge_as_told)
        self._peers.register(STANDING, lambda body: self._standing())

    async def usage(self) -> CacheStanding:
        """What all workers hold and have done."""
        total = await self._standing()
        for other in await self._peers.ask(STANDING):
            values = [a + b for a, b in zip(total, other, strict=True)]
            total = CacheStanding(*values) if self._is_local else CacheStanding(*total[:4], *values[4:])
        return total

    async def _standing(self) -> CacheStanding:
        state = self.caching.state
        usage = await state.storage.cache.usage()
        limit = self.limit
        return CacheStanding(usage.entries, usage.size, usage.evicted, limit, state.stores, len(state.in_flight))

    @property
    def _is_local(self) -> bool:
        """Whether each process has one of its own."""
        return self.caching.state.storage.local is not None

    async def purge(self, selector: PurgeSelector) -> int:
        """Forget it, and say how many entries that were.

        L{errors.Invalid} where the choice cannot be made: a path without a project, a project in a shared cache.
        L{CacheUnavailable<errors.management.CacheUnavailable>} where not all is known to be forgotten.
        """
        if not (selector.api or selector.project_id):
            return await self._purge("")
        apis = [selector.api] if selector.api else self.caching.policies
        return sum([await self._purge(self._prefix(selector, api)) for api in apis])

    async def _purge(self, prefix: str) -> int:
        elsewhere: list[int] = await self._peers.ask(PURGE, prefix)
        return await self.caching.purge(prefix) + sum(elsewhere)

    async def _purge_as_told(self, prefix: str) -> int:
        """What is purged through another worker; where all share one cache, that one removes what is there."""
        if self._is_local:
            return await self.caching.purge(prefix)
        self.caching.state.in_flight.forbid_storing(prefix)
        return 0

    def _prefix(self, selector: PurgeSelector, api: str) -> str:
        tenant = self._tenant(selector)
        if not (selector.path or selector.prefix):
            return key_prefix(api, tenant)
        if tenant is None:
            raise errors.Invalid("path and prefix need a project_id: each project has answers of its own.")
        policy = self.caching.policies[api]
        target = policy.base + (selector.path or selector.prefix).encode("ascii", "replace")
        if not selector.path:
            return key_prefix(api, tenant, target)
        method = "GET" if selector.method == "HEAD" else selector.method
        if selector.body is None and not selector.headers:
            return f"{key_of_target(api, tenant, target)} {method}{' ' if method else ''}"
        lines = [f"{name}: {value}".encode("latin-1", "replace") for name, value in selector.headers.items()]
        body = (selector.body or "").encode() if method == "POST" else None
        return cache_key(api, tenant, (method or "GET").encode("ascii", "replace"), target, lines, body, policy.marks)

    def _tenant(self, selector: PurgeSelector) -> Sequence[str] | None:
        scope = self.caching.state.scope
        if scope == "shared":
            if selector.project_id:
                raise errors.Invalid("With cache.scope: shared no answer belongs to a project.")
            return ()
        if not selector.project_id:
            return None
        if scope != "token" and selector.token_id:
            raise errors.Invalid("token_id needs cache.scope: token; here no answer belongs to a token.")
        if scope == "token" and (selector.path or selector.prefix) and not selector.token_id:
            raise errors.Invalid("With cache.scope: token a path or prefix needs a token_id too.")
        return (selector.project_id, selector.token_id) if selector.token_id else (selector.project_id,)
