"""The settings of one API: whose it is, what may be called, and how its provider is reached.

The texts under the fields are what C{docs/settings.md} and C{etc/apis.schema.json} say.
"""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from llmproxy.access_policy import AccessPolicy
from llmproxy.config import names
from llmproxy.config.allowance_settings import AllowanceSettings
from llmproxy.config.policy_settings import access_policy
from llmproxy.config.types import (
    BaseUrl,
    Duration,
    Endpoints,
    ErrorFormat,
    Flag,
    Headers,
    HeaderValues,
    Items,
    Methods,
    Name,
    Origins,
    Patterns,
    Provider,
    ProxyCredentials,
    ProxyUrl,
    RequiredParams,
    Section,
    Text,
    Whole,
)
from llmproxy.config.upstream_settings import (
    Affinity,
    Balance,
    CircuitBreaker,
    Probe,
    Retries,
    UpstreamServer,
    with_their_whole,
)
from llmproxy.http.endpoints import split_method


class Timeouts(Section):
    """How long each phase may take; 0 means no limit."""

    connect: Duration = 10.0
    """To connect to the provider, TLS included. Then 504."""
    response_header: Duration = 300.0
    """From the sent request to the first byte of a stream. Then 504. A response that is not streamed has no head until
    it is complete, so only `request` bounds it."""
    request: Duration = 600.0
    """For a complete response that is not streamed, less the time that a slow client takes. Then 504, or the response
    is aborted if it has begun. The default is what the providers' SDKs wait."""
    stream: Duration = 0.0
    """For a complete stream."""
    idle: Duration = 120.0
    """Longest pause between two chunks of a stream; after it the stream is aborted."""
    idle_connection: Duration = 90.0
    """How long an unused connection to the provider is kept; for less where the provider is seen to close it sooner."""
    drain: Duration = 60.0
    """How long a response whose client disconnected is still read, with `on_client_abort: drain`."""
    flush_interval: Duration = 0.0
    """How long chunks of a response are gathered before they are sent on; 0: each is sent the moment it arrives."""


class ConnectionSettings(Section):
    """The pool of connections to the provider."""

    max_idle_conns: Whole = Field(default=100, ge=0)
    """Idle connections in the pool, in all."""
    max_idle_conns_per_host: Whole = Field(default=20, ge=0)
    """Idle connections to one host."""
    max_conns_per_host: Whole = Field(default=1000, ge=1)
    """Connections to one host; further requests wait for one, for at most `timeouts.connect`, the projects in turn."""
    dns_ttl: Duration = 30.0
    """For how long the addresses of the provider's name are used before it is looked up again. Connections to an
    address that it does not stand for any more are closed within that time. 0: it is looked up for each connection."""
    max_open_per_project: Whole = Field(default=0, ge=0)
    """Requests of one project in flight, for each worker; beyond it 429 `too_many_open_requests`. 0: half of
    `max_conns_per_host`, so that no project can keep all others from the provider, whatever its clients do."""


class ApiCache(Section):
    """Which responses of an API are cached, beside those that HTTP lets any cache store."""

    post: Literal["optin", "always", "never"] = "optin"
    """Whether the response to a `POST` may be stored and reused for the same request: `optin`, if the request says so
    with `Cache-Control: public, max-age=…` or `s-maxage=…`; `always`; or `never`. What the provider forbids is never
    stored."""
    ttl: Duration = 0.0
    """With `always`, which needs it: how long such a response is fresh, if neither request nor provider says so."""

    @model_validator(mode="after")
    def _always_for_some_time(self) -> Self:
        if self.post == "always" and not self.ttl:
            raise ValueError("post: always needs a ttl above 0, for answers that do not say how long they are fresh")
        return self


class ApiLimits(AllowanceSettings):
    """Limits of this API over all projects; 0 and empty mean no limit."""

    default_output_tokens: Whole = Field(default=4096, ge=0)
    """Output tokens assumed for a request that sets no `max_tokens` or the like, in all limits that it is checked
    against."""


class Metering(Section):
    """Reading from responses what was used."""

    enabled: Flag = True
    """Whether responses are measured."""
    include_usage: Literal["leave", "inject"] = "leave"
    """`inject`: a streamed chat completion that does not ask for its usage is made to, and the event that reports it is
    kept from the client. Such requests and responses no longer pass byte for byte."""


class Api(Section):
    """One provider's API."""

    provider: Provider = "generic"
    """Whose API it is: decides how its key is sent, how its errors look and how its usage is read."""
    base_url: BaseUrl = ""
    """Base URL of the provider. Its path, if any, is prepended to the client's. Without user name, query or
    fragment. Required, unless `upstreams` has them."""
    upstreams: Annotated[tuple[UpstreamServer, ...], Items, Field(max_length=64)] = ()
    """Instead of `base_url`: several servers of the same API, among which `balance` chooses."""
    balance: Balance = "least_busy"
    """How one of several upstreams, and of several keys of a project, is chosen for each request: `least_busy`, the one
    with the fewest requests in flight for its weight; `round_robin`, in turn; `failover`, the first in the list that
    works; `affinity`, requests of one session, or that begin alike, go to the same one with the same key."""
    affinity: Affinity = Affinity()
    key_cooldown: Duration = 60.0
    """How long one of several keys is passed over once the provider has answered 401, 402 or 403 to it, unless the
    project gets another key before. After 429 and 529 it is passed over for as long as `Retry-After` says, or 5 s."""
    allowed_endpoints: Endpoints = Field(min_length=1)
    """The paths that may be called, and no others.
    `*` stands for a part of one segment, `/**` at the end for any depth. `GET /v1/models` allows that method only (one
    of `allowed_methods`; `HEAD` goes with `GET`)."""
    allowed_methods: Methods = Field(default=("GET", "POST"), min_length=1)
    """The methods that may be used, in capitals. HEAD is allowed where GET is."""
    auth: Annotated[str, BeforeValidator(names.auth)] = ""
    """How the provider key is sent: `bearer`, `x-api-key`, `api-key`, `x-goog-api-key`, or the name of a header field;
    empty for the provider's own way."""
    query_key: Flag = False
    """Whether a client may also send its token as `?key=`. URLs end up in logs: leave it off if you can."""
    forward_cookies: Flag = False
    """Whether a client's cookies are forwarded to the provider, all but this proxy's own. A session cookie of your own
    domain is a credential: leave it off unless the provider needs cookies."""
    timeouts: Timeouts = Timeouts()
    connection: ConnectionSettings = ConnectionSettings()
    param_whitelist: dict[Name, Patterns] = Field(default_factory=dict)
    """Parameters of the request body, JSON or a form, and the values (globs) that each may have. Those not listed are
    free.

    Such a body is read whole before it is sent."""
    allowed_origins: Origins = ()
    """Origins of web pages that may call it, as browsers send them; `*` for any. Empty: not checked."""
    required_headers: Headers = ()
    """Header fields that a request must have."""
    header_values: HeaderValues = Field(default_factory=dict)
    """Header fields and the values (globs) that each may have, where it is there. What stands between commas is a list,
    of which each element must be allowed."""
    required_params: RequiredParams = ()
    """Parameters of the request body that must be there: `user`; or one of several: `max_tokens|max_completion_tokens`.
    Of requests that the provider bills."""
    max_output_tokens: Whole = Field(default=0, ge=0)
    """Tokens of output that a request may ask for, by `max_tokens` or however its endpoint calls that, for all its
    choices (`n`) together; 0: any number. A request that asks for more is refused."""
    limits: ApiLimits = ApiLimits()
    circuit_breaker: CircuitBreaker = CircuitBreaker()
    probe: Probe = Probe()
    retries: Retries = Retries()
    metering: Metering = Metering()
    heartbeat: Duration = 0.0
    """How long a stream of events (`text/event-stream`, without a content coding) may be silent until its client is
    sent a comment, `: heartbeat`, so that no load balancer takes it for dead; again after each further such time. Only
    between whole events. Such responses no longer pass byte for byte. 0: never."""
    on_client_abort: Literal["cancel", "drain"] = "cancel"
    """What happens to a response that has begun when its client disconnects: `cancel` aborts the upstream request;
    `drain` reads it to the end, for at most `timeouts.drain`, so that its usage is known exactly."""
    error_format: ErrorFormat = "auto"
    """The format of this proxy's own error bodies; `auto` follows the provider."""
    forward_client_ip: Flag = False
    """Whether the client's address is sent to the provider, in `X-Forwarded-For`."""
    cache: ApiCache = ApiCache()
    ca_file: Text = ""
    """Further certificate authorities to trust for this provider, a PEM file."""
    proxy_url: ProxyUrl = ""
    """An HTTP proxy through which the provider is reached, such as `http://proxy.example.com:3128`: it is asked for a
    tunnel (`CONNECT`), in which TLS is spoken with the provider itself. With `https://` TLS is spoken with the proxy
    too, which is trusted as the provider is. Without user and password."""
    proxy_credentials: ProxyCredentials = ""
    """Where the proxy's `user:password` is kept: `env:NAME`, or `file:/path`. Read at the start and at each reload."""
    client_cert_file: Text = ""
    """A certificate, PEM, to show to a provider that demands one; behind it those of intermediate authorities. Read
    anew at each reload."""
    client_key_file: Text = ""
    """Its private key, PEM, without a passphrase; empty: in the same file."""

    @property
    def servers(self) -> tuple[UpstreamServer, ...]:
        """Its upstreams: `base_url` is a list of one."""
        return self.upstreams or (UpstreamServer(base_url=self.base_url),)

    @cached_property
    def policy(self) -> AccessPolicy | None:
        """What it allows of requests beside methods and endpoints, which its routes know; C{None} where that is all."""
        return access_policy(self)

    @model_validator(mode="after")
    def _servers_are_named(self) -> Self:
        if self.upstreams and self.base_url and self.base_url != self.upstreams[0].base_url:
            raise ValueError("base_url: the upstreams have their own; leave it out")
        if len({server.base_url for server in self.upstreams}) < len(self.upstreams):
            raise ValueError("upstreams: two of them have the same base_url")
        if not self.upstreams and not self.base_url:
            raise ValueError("base_url: is required, or a list of upstreams")
        if not self.base_url:
            self.__dict__["base_url"] = self.upstreams[0].base_url  # what else is known of the API goes by the first
        return self

    @model_validator(mode="after")
    def _parts_need_their_whole(self) -> Self:
        return with_their_whole(self)

    @model_validator(mode="after")
    def _methods_are_allowed(self) -> Self:
        for pattern in self.allowed_endpoints:
            method, _ = split_method(pattern)
            if method and not {method, "GET" if method == "HEAD" else method} & {*self.allowed_methods}:
                raise ValueError(f'allowed_endpoints: "{pattern}" names a method that is not among allowed_methods')
        return self
