"""The providers' keys of projects, cached for a while."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime

from llmproxy import errors
from llmproxy.base.ttl_cache import CacheEntry, CacheLease, TTLCache
from llmproxy.http import credentials
from llmproxy.interfaces import IProviderKeyLists, IProviderKeys


class ProviderKey(NamedTuple):
    """A project's key for one provider.

    @ivar line: The header line that carries it.
    """

    value: bytes
    line: bytes


class ProviderKeys:
    """Caches each project's provider keys for a while, so that the usual request looks nothing up."""

    def __init__(
        self,
        store: IProviderKeys,
        clock: IReactorTime,
        *,
        ttl: float,
        size: int = 10_000,
        lease: CacheLease | None = None,
        learn: Callable[[str], object] = lambda key: None,
    ) -> None:
        """
        @param ttl: Seconds for which a key is cached.
        @param lease: Renewed by whoever calls L{forget}: no key is used for longer than that says.
        @param learn: Called with every key, so that logs can leave it out.
        """
        self._learn = learn
        self._store = store
        self._clock = clock
        self._cached: TTLCache[tuple[str, str], tuple[ProviderKey, ...]] = TTLCache(clock, ttl, size, lease)
        self._changes = 0

    def get_cached(self, project_id: str, api: str) -> tuple[ProviderKey, ...] | None:
        """The keys, of which there is one at least, if they are cached."""
        return self._cached.get((project_id, api))

    def entry(self, project_id: str, api: str) -> CacheEntry[tuple[ProviderKey, ...]] | None:
        """As L{get_cached}, with how long they are good."""
        return self._cached.entry((project_id, api))

    async def look_up(self, project_id: str, api: str, scheme: str) -> tuple[ProviderKey, ...]:
        """Ask the store.

        L{errors.UpstreamAuthError}: there is no key, or it is none; L{errors.StoreUnavailable}: the store is down.

        @param scheme: How the provider wants it; see L{credentials.scheme}.
        """
        changes = self._changes
        try:
            values = await self._ask(project_id, api)
        except (errors.ProxyError, CancelledError):
            raise
        except Exception as e:
            raise errors.StoreUnavailable("The provider's key could not be looked up. Try again.") from e
        if not values or not all(values):
            raise errors.UpstreamAuthError
        for value in values:
            self._learn(value)
        lines = [credentials.inject(scheme, value) for value in values]
        keys = tuple(ProviderKey(value.encode("ascii"), line) for value, line in zip(values, lines, strict=True))
        if changes == self._changes:  # nothing was changed while we asked
            self._cached.put((project_id, api), keys, self._clock.seconds(), project_id)
        return keys

    async def _ask(self, project_id: str, api: str) -> Sequence[str]:
        if IProviderKeyLists.providedBy(self._store):
            keys: Sequence[str] = await IProviderKeyLists(self._store).get_api_keys_for_project(project_id, api)
            return keys
        return (await self._store.get_api_key_for_project(project_id, api),)

    def forget(self, project_id: str) -> None:
        """The project (C{""}: any) has changed: whatever is cached of it may be wrong."""
        self._changes += 1
        if project_id:
            self._cached.drop_group(project_id)
        else:
            self._cached.clear()
