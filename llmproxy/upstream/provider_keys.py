"""The providers' keys of projects, remembered for a short time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime

from llmproxy import errors
from llmproxy.http import credentials
from llmproxy.interfaces import IProviderKeys

_NEVER = (0.0, None)


class ProviderKey(NamedTuple):
    """A project's key for one provider.

    @ivar line: The header line that carries it.
    """

    value: bytes
    line: bytes


class ProviderKeys:
    """Remembers each project's provider keys for a short time, so that the usual request looks nothing up."""

    def __init__(
        self,
        store: IProviderKeys,
        clock: IReactorTime,
        *,
        ttl: float,
        size: int = 10_000,
        learn: Callable[[str], object] = lambda key: None,
    ) -> None:
        """
        @param ttl: Seconds for which a key is remembered.
        @param learn: Told every key, so that logs can leave it out.
        """
        self._learn = learn
        self._store = store
        self._clock = clock
        self._ttl = ttl
        self._size = size
        self._cached: OrderedDict[tuple[str, str], tuple[float, ProviderKey | None]] = OrderedDict()
        self._changes = 0

    def get_cached(self, project_id: str, api: str) -> ProviderKey | None:
        """The key, if it is remembered."""
        until, key = self._cached.get((project_id, api), _NEVER)
        return key if self._clock.seconds() < until else None

    async def look_up(self, project_id: str, api: str, scheme: str) -> ProviderKey:
        """Ask the store.

        L{errors.UpstreamAuthError}: there is no key, or it is none; L{errors.StoreUnavailable}: the store is down.

        @param scheme: How the provider wants it; see L{credentials.scheme}.
        """
        changes = self._changes
        try:
            value = await self._store.get_api_key_for_project(project_id, api)
        except (errors.ProxyError, CancelledError):
            raise
        except Exception as e:
            raise errors.StoreUnavailable("The provider's key could not be looked up. Try again.") from e
        if not value:
            raise errors.UpstreamAuthError
        self._learn(value)
        line = credentials.inject(scheme, value)
        key = ProviderKey(value.encode("ascii"), line)
        if changes == self._changes:  # nothing was changed while we asked
            self._cached[project_id, api] = (self._clock.seconds() + self._ttl, key)
            while len(self._cached) > self._size:
                self._cached.popitem(last=False)
        return key

    def forget(self, project_id: str) -> None:
        """The project (C{""}: any) has changed: whatever is remembered of it may be wrong."""
        self._changes += 1
        if not project_id:
            self._cached.clear()
        for known in [k for k in self._cached if k[0] == project_id]:
            del self._cached[known]
