"""The settings of one API: whose it is, what may be called, and how its provider is reached.

The texts under the fields are what C{docs/settings.md} and C{etc/apis.schema.json} say.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from llmproxy.base import budgets
from llmproxy.config import names
from llmproxy.config.types import (
    BaseUrl,
    Duration,
    Endpoints,
    ErrorFormat,
    Flag,
    Headers,
    Items,
    Methods,
    Name,
    Origins,
    Patterns,
    Provider,
    Section,
    Text,
    TokenBudgets,
    UsdBudgets,
    Whole,
)
from llmproxy.http.endpoints import split_method
from llmproxy.model import UNLIMITED, Allowance


class Timeouts(Section):
    """How long each phase may take; 0 means no limit."""

    connect: Duration = 10.0
    """For a connection to the provider, TLS included. Then 504."""
    response_header: Duration = 300.0
    """For the first byte of a stream, once the request is sent. Then 504. An answer that is not streamed has no head
    until it is done, so only `request` bounds it."""
    request: Duration = 600.0
    """For a complete answer that is not streamed, less the time that a slow client takes. Then 504, or a cut if it has
    begun. As long as the providers' SDKs wait."""
    stream: Duration = 0.0
    """For a complete stream."""
    idle: Duration = 120.0
    """For silence between two pieces of a stream. Then it is cut."""
    idle_connection: Duration = 90.0
    """How long an unused connection to the provider is kept."""
    drain: Duration = 60.0
    """How long an answer whose client left is still read, where `on_client_abort` is `drain`."""
    flush_interval: Duration = 0.0
    """Pieces of an answer are gathered for so long before they are passed on; 0: each leaves the moment it arrives."""


class Connection(Section):
    """The pool of connections to the provider."""

    max_idle_conns: Whole = Field(default=100, ge=0)
    """Unused connections kept, in all."""
    max_idle_conns_per_host: Whole = Field(default=20, ge=0)
    """Unused connections kept to one host."""
    max_conns_per_host: Whole = Field(default=1000, ge=1)
    """Connections to one host; further requests wait for one."""
    max_open_per_project: Whole = Field(default=0, ge=0)
    """Requests of one project under way at once; beyond it 429 `too_many_open_requests`. 0: half of
    `max_conns_per_host`, so that no project, whatever its clients do, can keep all others from the provider. For each
    worker."""


class CircuitBreaker(Section):
    """Holds requests back while the provider is down."""

    failures: Whole = Field(default=5, ge=0)
    """So many failures in a row open it; 0 switches it off."""
    cooldown: Duration = 30.0
    """How long it stays open before one request may try again."""


class Retries(Section):
    """Sending again, always before the first byte of an answer."""

    attempts: Whole = Field(default=1, ge=1, le=10)
    """How often a request is sent in all; 1 means never again."""
    on: Annotated[tuple[Literal["connect"], ...], Items, Field(min_length=1)] = ("connect",)
    """After which failures: only `connect`, when nothing of the request has been sent: all else may be billed twice."""


class ApiCache(Section):
    """What of an API's answers is kept, beside what HTTP lets any cache keep."""

    post: Literal["optin", "always", "never"] = "optin"
    """Whether the answer to a `POST` may be kept and given again to the same request: `optin`, if the request says so
    with `Cache-Control: public, max-age=…` or `s-maxage=…`; `always`; or `never`. What the provider forbids is never
    kept."""
    ttl: Duration = 0.0
    """With `always`, which needs it: for how long such an answer is fresh, if neither request nor provider says so."""

    @model_validator(mode="after")
    def _always_for_some_time(self) -> Self:
        if self.post == "always" and not self.ttl:
            raise ValueError("post: always needs a ttl above 0, for answers that do not say how long they are fresh")
        return self


class ApiLimits(Section):
    """What all projects together may use of this API; 0 and nothing mean no limit."""

    requests_per_minute: Whole = Field(default=0, ge=0)
    """Requests in any minute."""
    tokens_per_minute: Whole = Field(default=0, ge=0)
    """Tokens in any minute, input and output."""
    concurrency: Whole = Field(default=0, ge=0)
    """Requests at once."""
    budget_usd: UsdBudgets = ()
    """Dollars to be spent, such as `20/month`; or a list, at most one for each of `day`, `month` and `lifetime`."""
    budget_tokens: TokenBudgets = ()
    """Tokens to be used, such as `1000000/day`; likewise."""
    default_output_tokens: Whole = Field(default=4096, ge=0)
    """How many tokens of output a request is reckoned to use at most, whoever's limit it is, where it says no
    `max_tokens` or the like itself."""

    @model_validator(mode="after")
    def _periods_differ(self) -> Self:
        self.allowance()
        return self

    def allowance(self) -> Allowance | None:
        """These limits as the value that travels; C{None} where there are none."""
        made = Allowance(
            requests_per_minute=self.requests_per_minute or None,
            tokens_per_minute=self.tokens_per_minute or None,
            concurrency=self.concurrency or None,
            budget_usd=budgets.each_once(map(budgets.usd, self.budget_usd)),
            budget_tokens=budgets.each_once(map(budgets.tokens, self.budget_tokens)),
        )
        return None if made == UNLIMITED else made


class Metering(Section):
    """What is known of the tokens that answers use."""

    enabled: Flag = True
    """Whether answers are measured."""
    include_usage: Literal["leave", "inject"] = "leave"
    """`inject`: a streamed chat completion whose client did not ask for its usage is asked for it in its place, and the
    event that tells it is kept from the client. Such requests and answers are no longer passed on byte for byte."""


class Api(Section):
    """One provider's API."""

    provider: Provider = "generic"
    """Whose API it is, which says how its key is sent and what its errors look like."""
    base_url: BaseUrl
    """Where it is; its path, if it has one, goes before the client's. Without user name, query or fragment."""
    allowed_endpoints: Endpoints = Field(min_length=1)
    """The paths that may be called, exactly these.
    `*` stands for a part of one segment, `/**` at the end for any depth. `GET /v1/models` allows that method only (one
    of `allowed_methods`; `HEAD` goes with `GET`)."""
    allowed_methods: Methods = Field(default=("GET", "POST"), min_length=1)
    """The methods that may be used, in capitals. HEAD may be where GET may."""
    auth: Annotated[str, BeforeValidator(names.auth)] = ""
    """How the provider's key is sent: `bearer`, `x-api-key`, `api-key`, `x-goog-api-key`, or the name of a header;
    empty for the provider's own way."""
    query_key: Flag = False
    """Whether a client may also send its token as `?key=`. Addresses end up in logs; leave it off if you can."""
    forward_cookies: Flag = False
    """Whether a client's cookies go on to the provider, all but this proxy's own. A page's session of your own domain
    is a credential: leave it off unless the provider wants cookies."""
    timeouts: Timeouts = Timeouts()
    connection: Connection = Connection()
    param_whitelist: dict[Name, Patterns] = Field(default_factory=dict)
    """Parameters of the request's body, JSON or a form, and the values (globs) each may have. Those not listed are
    free.

    Such a body is read whole before it is sent."""
    allowed_origins: Origins = ()
    """The web pages that may call it, as browsers write them; `*` for any. Empty: not checked."""
    required_headers: Headers = ()
    """Headers that a request must have."""
    limits: ApiLimits = ApiLimits()
    circuit_breaker: CircuitBreaker = CircuitBreaker()
    retries: Retries = Retries()
    metering: Metering = Metering()
    on_client_abort: Literal["cancel", "drain"] = "cancel"
    """What becomes of an answer that has begun when its client leaves: the provider is stopped (`cancel`), or heard out
    for as long as `timeouts.drain` says, so that what it used is known exactly (`drain`)."""
    error_format: ErrorFormat = "auto"
    """The shape of this proxy's own error bodies; `auto` follows the provider."""
    forward_client_ip: Flag = False
    """Whether the provider is told the client's address, in `X-Forwarded-For`."""
    cache: ApiCache = ApiCache()
    ca_file: Text = ""
    """Further certificate authorities to trust for this provider, a PEM file."""

    @model_validator(mode="after")
    def _methods_are_allowed(self) -> Self:
        for pattern in self.allowed_endpoints:
            method, _ = split_method(pattern)
            if method and not {method, "GET" if method == "HEAD" else method} & {*self.allowed_methods}:
                raise ValueError(f'allowed_endpoints: "{pattern}" names a method that is not among allowed_methods')
        return self
