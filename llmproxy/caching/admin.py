"""What an operator sees of the cache, and throws out of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from llmproxy import errors
from llmproxy.caching.keys import cache_key, key_prefix
from llmproxy.caching.service import ResponseCache
from llmproxy.model import CacheUsage


@dataclass(frozen=True, slots=True)
class PurgeSelector:
    """What is to go. Everything that is left out means all of it.

    @ivar token_id: With C{scope: token}, whose answers.
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


class CacheAdmin:
    """A L{ResponseCache} and its counters, for those who manage it."""

    def __init__(self, caching: ResponseCache, backend: str, limit: int) -> None:
        """
        @param limit: Bytes that the backend may hold; C{0} where that is not for this process to say.
        """
        self.caching = caching
        self.backend = backend
        self.limit = limit

    async def usage(self) -> CacheUsage:
        return await self.caching.storage.cache.usage()

    async def purge(self, chosen: PurgeSelector) -> int:
        """Forget it, and say how many entries that were.

        L{errors.Invalid} where the choice cannot be made: a path without a project, a project in a shared cache.
        """
        if not (chosen.api or chosen.project_id):
            return await self.caching.purge("")
        apis = [chosen.api] if chosen.api else self.caching.plans
        return sum([await self.caching.purge(self._prefix(chosen, api)) for api in apis])

    def _prefix(self, chosen: PurgeSelector, api: str) -> str:
        tenant = self._tenant(chosen)
        if not (chosen.path or chosen.prefix):
            return key_prefix(api, tenant)
        if tenant is None:
            raise errors.Invalid("path and prefix need a project_id: each project has answers of its own.")
        plan = self.caching.plans[api]
        target = plan.base + (chosen.path or chosen.prefix).encode("ascii", "replace")
        if not chosen.path:
            return key_prefix(api, tenant, target)
        method = "GET" if chosen.method == "HEAD" else chosen.method
        if chosen.body is None and not chosen.headers:
            return f"{key_prefix(api, tenant, target)} {method}{' ' if method else ''}"
        lines = [f"{name}: {value}".encode("latin-1", "replace") for name, value in chosen.headers.items()]
        body = (chosen.body or "").encode() if method == "POST" else None
        return cache_key(api, tenant, (method or "GET").encode("ascii", "replace"), target, lines, body, plan.marks)

    def _tenant(self, chosen: PurgeSelector) -> Sequence[str] | None:
        if self.caching.scope == "shared":
            if chosen.project_id:
                raise errors.Invalid("With cache.scope: shared no answer belongs to a project.")
            return ()
        if not chosen.project_id:
            return None
        if self.caching.scope == "token" and chosen.path and not chosen.token_id:
            raise errors.Invalid("With cache.scope: token a path needs a token_id too.")
        return (chosen.project_id, chosen.token_id) if chosen.token_id else (chosen.project_id,)
