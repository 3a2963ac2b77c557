"""What the cache knows of one request, as a value; and whether a request may use the cache at all."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from llmproxy.caching.rules import reuse
from llmproxy.caching.rules.directives import Directives
from llmproxy.caching.rules.storing import StoringRules
from llmproxy.config.api_settings import Timeouts
from llmproxy.http.field_lines import FieldLines


@dataclass(frozen=True)
class ApiCachePolicy:
    """What the settings say about one API.

    @ivar host: The provider's, as in C{Host}; C{base}: the path that goes before a client's.
    @ivar post: Whether responses to C{POST} may be stored: C{optin}, C{always} or C{never}.
    @ivar ttl: For how many seconds such a response is fresh, where neither the request nor the provider says.
    @ivar streams: Whether streams of events are stored.
    @ivar marks: Settings that make responses differ, such as where the upstreams are; part of the key.
    @ivar reads: Whether the API allows C{GET} or C{HEAD}, so that there is something to invalidate.
    @ivar max_object_bytes: A larger body is not stored.
    @ivar timeouts: How long a response may take.
    """

    api: str
    provider: str = ""
    host: bytes = b""
    base: bytes = b""
    rules: StoringRules = field(default_factory=StoringRules)
    post: str = "optin"
    ttl: float = 0.0
    streams: bool = True
    marks: bytes = b""
    reads: bool = True
    max_object_bytes: int = 16 * 1024 * 1024
    timeouts: Timeouts = field(default_factory=Timeouts)


class CacheRequest(NamedTuple):
    """A request that may be served from the cache, or whose response may be stored.

    @ivar tenant: Whose responses it may be served: project, or project and token; empty where anybody's.
    @ivar key: The primary key; C{""} until the request's body is known.
    @ivar lines: Its field lines, without credentials.
    @ivar directives: Its C{Cache-Control}.
    @ivar explicit_ttl: For how many seconds it lets its response be stored, where it opts in (a C{POST}); else C{None}.
    @ivar version: Of its key when it was looked up, where several processes share the cache: what may have been removed
        since is not stored, and joined by nobody.
    """

    policy: ApiCachePolicy
    tenant: tuple[str, ...]
    key: str
    method: bytes
    lines: FieldLines
    directives: Directives
    explicit_ttl: float | None = None
    version: Any = None

    @property
    def needs_body(self) -> bool:
        """Whether its key depends on the request's body."""
        return self.method == b"POST"

    @property
    def only_if_cached(self) -> bool:
        """Whether the provider must not be called for it."""
        return b"only-if-cached" in self.directives

    @property
    def may_join(self) -> bool:
        """Whether a response will do that somebody else has just asked for."""
        return self.method != b"HEAD" and b"no-cache" not in self.directives


def cacheable(policy: ApiCachePolicy, method: bytes, lines: FieldLines) -> tuple[Directives, float | None] | None:
    """The directives and the explicit ttl of a request that may use the cache; C{None} for any other."""
    explicit_ttl = None
    if method == b"POST":
        if policy.post == "never" or (policy.post == "optin" and b"cache-control" not in lines.names):
            return None
        directives = reuse.request_directives(lines)
        explicit_ttl = reuse.explicit_ttl(directives)
        if explicit_ttl is None and policy.post == "always":
            explicit_ttl = policy.ttl or None
        if explicit_ttl is None:
            return None
    elif method in (b"GET", b"HEAD"):
        if b"transfer-encoding" in lines.names or b"content-length" in lines.names:
            return None
        directives = reuse.request_directives(lines)
    else:
        return None
    if b"no-store" in directives or not reuse.BYPASSING_FIELDS.isdisjoint(lines.names):
        return None
    return directives, explicit_ttl
