"""The settings of a proxy that is used as a library: one provider, in plain arguments."""

from __future__ import annotations

from dataclasses import dataclass

from llmproxy.config.model import Api, Cache, Connection, Provider, Redis, Server, Settings, Timeouts


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyConfig:
    """What a L{TransparentProxy} is told when there is no settings file. Times are seconds; 0 means no limit.

    @ivar target_base_url: Such as C{https://api.openai.com}.
    @ivar allowed_endpoints: Patterns as in the settings: exact paths, C{*} for one segment, a trailing C{/**} for any
        depth.
    @ivar provider: Whose way of sending the key and of telling errors it is; see C{apis.<name>.provider}.
    @ivar request_timeout: For a whole answer that is not streamed, as long as the providers' SDKs wait.
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
            connection=Connection(
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
