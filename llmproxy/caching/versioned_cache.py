"""A cache that several processes share, and that knows what one of them has removed while another makes a call."""

from __future__ import annotations

from typing import Any, NamedTuple

from twisted.internet.defer import Deferred

from llmproxy.interfaces import ICache


class VersionedValue(NamedTuple):
    """What stands under a key.

    @ivar value: C{None} where there is nothing, or where that is not known.
    @ivar version: It equals another one of the same key only where nothing was removed from there in between, by
        whomever; C{None} where that is not known.
    """

    value: bytes | None = None
    version: Any = None


class IVersionedCache(ICache):
    """Optional: without it, a response that was in flight to another process when its key was removed may be stored."""

    def get_versioned(key: str) -> Deferred[VersionedValue]:
        """As C{get}, with the key's version."""

    def put_if(key: str, value: bytes, ttl: float, version: Any) -> Deferred[bool]:
        """As C{put}, where the key has this version still; it never has C{None}."""
