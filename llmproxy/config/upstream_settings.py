"""The settings of how an API's requests are spread over its upstreams, held back from them, and sent again.

The texts under the fields are what C{docs/settings.md} and C{etc/apis.schema.json} say.
"""

from __future__ import annotations

from typing import Annotated, Literal, Protocol, Self, TypeVar

from pydantic import Field, model_validator

from llmproxy.config.types import (
    BaseUrl,
    Duration,
    Items,
    Percent,
    ProbePath,
    ProbeStatus,
    ProxyCredentials,
    ProxyUrl,
    RetryCause,
    Section,
    SessionHeaders,
    Text,
    Whole,
)

Balance = Literal["least_busy", "round_robin", "failover", "affinity"]


class _Reached(Protocol):
    @property
    def proxy_url(self) -> str: ...
    @property
    def proxy_credentials(self) -> str: ...
    @property
    def client_cert_file(self) -> str: ...
    @property
    def client_key_file(self) -> str: ...


R = TypeVar("R", bound=_Reached)


def with_their_whole(settings: R) -> R:
    """L{ValueError} where a part is set of something that is not."""
    if settings.proxy_credentials and not settings.proxy_url:
        raise ValueError("proxy_credentials: are of no use without a proxy_url beside them")
    if settings.client_key_file and not settings.client_cert_file:
        raise ValueError("client_key_file: is of no use without a client_cert_file beside it")
    return settings


class UpstreamServer(Section):
    """One of the servers of an API."""

    base_url: BaseUrl
    """Its base URL, as the API's own."""
    weight: Whole = Field(default=1, ge=1, le=1000)
    """How much of the requests it gets, compared with the others of its priority."""
    priority: Whole = Field(default=0, ge=0, le=1000)
    """Those with a higher number get requests only while none with a lower one can take them."""
    ca_file: Text = ""
    """Further certificate authorities to trust for it, a PEM file; the API's, where there is none."""
    proxy_url: ProxyUrl = ""
    """An HTTP proxy through which it is reached; the API's, where there is none."""
    proxy_credentials: ProxyCredentials = ""
    """The credentials of its own `proxy_url`."""
    client_cert_file: Text = ""
    """A certificate to show to it; the API's, where there is none."""
    client_key_file: Text = ""
    """Its private key; empty: in the same file."""

    @model_validator(mode="after")
    def _parts_need_their_whole(self) -> Self:
        return with_their_whole(self)


class Affinity(Section):
    """What keeps requests together with `balance: affinity`, so that a provider's prompt cache is warm."""

    headers: SessionHeaders = ("x-claude-code-session-id", "session_id", "session-id")
    """Header fields that name a session; the first one that a request has counts. A request without any goes by the
    first KiB of its body."""


class CircuitBreaker(Section):
    """Holds requests back while an upstream is down."""

    failures: Whole = Field(default=5, ge=0)
    """Consecutive failures that open the breaker; 0 disables that."""
    cooldown: Duration = 30.0
    """How long it stays open before a single request probes the provider."""
    error_ratio: Percent = 0.0
    """Share of requests within `window` that must have failed for the breaker to open too, such as `50%`; 0 disables
    that."""
    window: Duration = Field(default=30.0, ge=1.0)
    """The time over which `error_ratio` is taken."""
    min_requests: Whole = Field(default=20, ge=1)
    """Requests that there must be within `window` for `error_ratio` to count."""


class Probe(Section):
    """Asking each upstream now and then whether it works, beside the requests that go there."""

    path: ProbePath = ""
    """What is asked for, with `GET`, such as `/health` or `/v1/models`; the path of the upstream's `base_url` goes
    before it. Empty: upstreams are not probed."""
    interval: Duration = Field(default=10.0, ge=0.1)
    """From the beginning of one probe to that of the next; at random up to a tenth less or more."""
    timeout: Duration = Field(default=5.0, ge=0.01)
    """For the head of the response, the time for a connection included. One that comes later has failed."""
    healthy: Whole = Field(default=2, ge=1, le=100)
    """Consecutive good probes that bring an unhealthy upstream back. At the start one is enough."""
    unhealthy: Whole = Field(default=3, ge=1, le=100)
    """Consecutive failed probes after which an upstream gets no requests."""
    status: Annotated[tuple[ProbeStatus, ...], Items] = ()
    """The statuses of good probes: `200`, or a range such as `200-399`. Empty: all below 500, so that a provider which
    demands a key need not get one."""
    project: Text = ""
    """The id of a project whose key for this API is sent along; empty: none is."""


class Retries(Section):
    """Sending a request again, always before the first byte of a response."""

    attempts: Whole = Field(default=1, ge=1, le=10)
    """How often a request is sent at most; 1 means no retry. Another upstream or key, where there is one that can take
    a request which the first did not, is tried once in any case."""
    on: Annotated[tuple[RetryCause, ...], Items, Field(min_length=1)] = ("connect",)
    """After what: `connect`, no connection came about, so that nothing was sent; `reused`, a connection that had
    carried requests before was closed before the first byte of a response, most probably as one that had been unused
    for too long (where the provider provably took nothing of the request it is sent again in any case); `reset`, any
    connection was closed like that. After both what was sent may be billed twice. Or one of the statuses 429, 502, 503,
    504 and 529."""
    budget: Percent = 0.2
    """How many more requests the API's providers may get by that, over the last ten seconds, as a share of the
    requests that came; three in any case."""
    backoff: Duration = 0.25
    """The longest pause before the first repetition to the same upstream with the same key; doubled for each further
    one, up to 5 s. The pause is random between 0 and that, and never shorter than `Retry-After` says. Where that asks
    for more than 10 s, the response is the client's."""
