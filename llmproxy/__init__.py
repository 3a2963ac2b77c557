"""A transparent, governed reverse proxy daemon for LLM APIs.

What one needs of it as a library is here; see C{docs/library.md}.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmproxy.auth.caching_validator import CachedTokenValidator
    from llmproxy.caching.keys import cache_key_from_request, cache_key_from_request_with_vary
    from llmproxy.interfaces import (
        IAuditLogger,
        ICache,
        ICacheFactory,
        IEventBus,
        IEventSink,
        IImmediateValidator,
        IProjectStore,
        IProviderKeys,
        ITokenStore,
        ITokenValidator,
    )
    from llmproxy.library import ProxyConfig, TransparentProxy
    from llmproxy.model import AuditEntry, Grant, Project, RequestRecord, Token
    from llmproxy.observability.audit import FileAudit
    from llmproxy.observability.event_bus import MemoryBus
    from llmproxy.observability.metrics import ProxyMetrics
    from llmproxy.store.store import Store
    from llmproxy.wire.server.site import Site

# Where each name lives. They are imported when first asked for: the floors below must not load those above.
_HOMES = {
    "llmproxy.observability.audit": ("FileAudit",),
    "llmproxy.library": ("ProxyConfig", "TransparentProxy"),
    "llmproxy.observability.event_bus": ("MemoryBus",),
    "llmproxy.caching.keys": ("cache_key_from_request", "cache_key_from_request_with_vary"),
    "llmproxy.interfaces": (
        "IAuditLogger",
        "ICache",
        "ICacheFactory",
        "IEventBus",
        "IEventSink",
        "IImmediateValidator",
        "IProjectStore",
        "IProviderKeys",
        "ITokenStore",
        "ITokenValidator",
    ),
    "llmproxy.observability.metrics": ("ProxyMetrics",),
    "llmproxy.model": ("AuditEntry", "Grant", "Project", "RequestRecord", "Token"),
    "llmproxy.store.store": ("Store",),
    "llmproxy.wire.server.site": ("Site",),
    "llmproxy.auth.caching_validator": ("CachedTokenValidator",),
}
_WHERE = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "AuditEntry",
    "CachedTokenValidator",
    "FileAudit",
    "Grant",
    "IAuditLogger",
    "ICache",
    "ICacheFactory",
    "IEventBus",
    "IEventSink",
    "IImmediateValidator",
    "IProjectStore",
    "IProviderKeys",
    "ITokenStore",
    "ITokenValidator",
    "MemoryBus",
    "Project",
    "ProxyConfig",
    "ProxyMetrics",
    "RequestRecord",
    "Site",
    "Store",
    "Token",
    "TransparentProxy",
    "cache_key_from_request",
    "cache_key_from_request_with_vary",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)
