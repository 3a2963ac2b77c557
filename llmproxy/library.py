"""The proxy as a library: a Resource that any C{Site} can serve, and what it is told; see C{docs/library.md}."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from time import time
from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.logger import Logger

from llmproxy.composition.forwarding import forwarding
from llmproxy.config.api_settings import Api, ConnectionSettings, Timeouts
from llmproxy.config.model import Cache, Redis, Server, Settings
from llmproxy.config.types import Provider
from llmproxy.interfaces import IAuditLogger, IEventBus, IProviderKeys, ITokenValidator
from llmproxy.limits.counters.budget_store import MemoryBudgetStore
from llmproxy.limits.counters.memory import MemoryCounters
from llmproxy.model import RequestRecord
from llmproxy.observability.audit import NullAudit
from llmproxy.observability.metrics import Metrics, ProxyMetrics
from llmproxy.proxy.reporting import Observer, one_by_one
from llmproxy.web.proxy import ProxyResource, request_ids


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyConfig:
    """What a L{TransparentProxy} is told when there is no settings file. Times are seconds; 0 means no limit.

    @ivar target_base_url: Such as C{https://api.openai.com}.
    @ivar allowed_endpoints: Patterns as in the settings: exact paths, C{*} for one segment, a trailing C{/**} for any
        depth, and perhaps a method before it: C{GET /v1/models}.
    @ivar provider: Whose way of sending the key and of telling errors it is; see C{apis.<name>.provider}.
    @ivar request_timeout: For a whole response that is not streamed, as long as the providers' SDKs wait.
    @ivar response_header_timeout: For the first byte of a stream; C{idle_timeout}: for silence within it.
    @ivar max_conns_per_host: Connections to the provider at most; further requests wait for one.
    @ivar max_open_per_project: Requests of one project under way at once; 0: half of C{max_conns_per_host}.
    @ivar enforce_project_active: Whether an inactive project is refused.
    """

    target_base_url: str
    allowed_endpoints: tuple[str, ...] | list[str]
    allowed_methods: tuple[str, ...] | list[str] = ("GET", "POST")
    provider: Provider = "openai"
    request_timeout: float = 600.0
    response_header_timeout: float = 300.0
    connect_timeout: float = 10.0
    idle_timeout: float = 120.0
    flush_interval: float = 0.0
    max_idle_conns: int = 100
    max_idle_conns_per_host: int = 20
    max_conns_per_host: int = 1000
    max_open_per_project: int = 0
    max_request_bytes: int = 64 * 1024 * 1024
    http_cache_enabled: bool = True
    redis_cache_url: str = ""
    redis_cache_key_prefix: str = "llmproxy:"
    enforce_project_active: bool = True

    def settings(self) -> Settings:
        """The same as a settings file would say it, with one API named C{default}.

        @raise pydantic.ValidationError: (a L{ValueError}) that says what is wrong.
        """
        api = Api(
            provider=self.provider,
            base_url=self.target_base_url,
            allowed_endpoints=tuple(self.allowed_endpoints),
            allowed_methods=tuple(self.allowed_methods),
            timeouts=Timeouts(
                connect=float(self.connect_timeout),
                response_header=float(self.response_header_timeout),
                request=float(self.request_timeout),
                idle=float(self.idle_timeout),
                flush_interval=float(self.flush_interval),
            ),
            connection=ConnectionSettings(
                max_idle_conns=self.max_idle_conns,
                max_idle_conns_per_host=self.max_idle_conns_per_host,
                max_conns_per_host=self.max_conns_per_host,
                max_open_per_project=self.max_open_per_project,
            ),
        )
        return Settings(
            default_api="default",
            apis={"default": api},
            server=Server(max_request_bytes=self.max_request_bytes, enforce_project_active=self.enforce_project_active),
            cache=Cache(enabled=self.http_cache_enabled, backend="redis" if self.redis_cache_url else "memory"),
            redis=Redis(url=self.redis_cache_url or "redis://localhost:6379/0", key_prefix=self.redis_cache_key_prefix),
        )


class TransparentProxy(ProxyResource):
    """The proxy as a Resource that any C{Site} can serve; see C{docs/library.md}.

    @param config: A L{ProxyConfig} for one provider, or whole L{Settings} for many.
    @param validator: An L{ITokenValidator}.
    @param store: An L{IProviderKeys}; any L{IProjectStore} is one.
    @param events: An L{IEventBus} that is told of every finished request.
    @param audit: An L{IAuditLogger} for requests that the project guard refuses.
    @param logger: Says one line for every finished request.
    @param reactor: The one that serves it; Twisted's global one if left out.
    """

    def __init__(
        self,
        config: ProxyConfig | Settings,
        validator: ITokenValidator,
        store: IProviderKeys,
        *,
        events: IEventBus | None = None,
        audit: IAuditLogger | None = None,
        logger: Logger | None = None,
        reactor: Any = None,
        now: Callable[[], float] | None = None,
    ) -> None:
        if reactor is None:
            from twisted.internet import reactor
        observers: list[Observer] = []
        if events is not None:
            observers.append(one_by_one(events.publish))
        if logger is not None:
            observers.append(one_by_one(partial(_log_request, logger)))
        tell_time = now or time  # a reactor's own clock may be one that knows no date
        settings = config.settings() if isinstance(config, ProxyConfig) else config
        self._metrics = Metrics(breakers=lambda: parts.upstreams.states())
        parts = forwarding(
            settings,
            reactor,
            validator=validator,
            projects=store,
            audit=audit or NullAudit(),
            now=tell_time,
            counters=MemoryCounters(MemoryBudgetStore(tell_time), reactor, tell_time),
            metrics=self._metrics,
            observers=observers,
        )
        self._parts = parts
        parts.probes.startService()
        super().__init__(
            parts.scheduler,
            clock=reactor,
            now=tell_time,
            fresh_id=request_ids(os.urandom),
            trusted_proxies=settings.server.trusted_proxies,
            fast_path=parts.fast_path,
        )

    def metrics(self) -> ProxyMetrics:
        """What has been counted so far."""
        return self._metrics.snapshot()

    async def close(self) -> None:
        """Let go of the connections to the provider, and of the cache."""
        await self._parts.hang_up()
        for service in reversed(self._parts.services):
            await maybeDeferred(service.stopService)


def _log_request(logger: Logger, record: RequestRecord) -> None:
    logger.info(
        "{record.method} {record.path} {record.status} {record.outcome} in {record.duration:.3f} s",
        record=record,
    )
