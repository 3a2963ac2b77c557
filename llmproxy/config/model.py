"""What may stand in the settings file, with every default and what it means.

Durations are seconds (float) and sizes bytes (int) once read; in the file they are written C{30s} and C{64KiB}.
The texts under the fields are what C{docs/settings.md} and C{etc/apis.schema.json} say.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema, model_validator

from llmproxy import budgets
from llmproxy.config import addresses, names, values
from llmproxy.config.external_text import ExternalText
from llmproxy.config.problems import did_you_mean, quoted
from llmproxy.config.units import DURATION, SIZE, duration, duration_text, size, size_text
from llmproxy.model import UNLIMITED, Allowance

Text = Annotated[str, BeforeValidator(values.text)]
Name = Annotated[str, BeforeValidator(values.name)]
Flag = Annotated[bool, BeforeValidator(values.flag)]
Whole = Annotated[int, BeforeValidator(values.whole)]
Amount = Annotated[float, BeforeValidator(values.amount), WithJsonSchema({"type": "number", "minimum": 0})]
Duration = Annotated[
    float,
    BeforeValidator(duration),
    PlainSerializer(duration_text, when_used="json"),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": f"^(?:{DURATION})$"}, {"const": 0}]}),
]
Size = Annotated[
    int,
    BeforeValidator(size),
    PlainSerializer(size_text, when_used="json"),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": f"^(?:{SIZE})$"}, {"type": "integer", "minimum": 0}]}),
]
Items = BeforeValidator(values.items)

Listen = Annotated[tuple[Annotated[str, BeforeValidator(addresses.listen)], ...], Items]
Networks = Annotated[tuple[Annotated[str, BeforeValidator(addresses.network)], ...], Items]
Endpoints = Annotated[tuple[Annotated[str, BeforeValidator(names.endpoint)], ...], Items]
_USD: dict[str, Any] = {
    "anyOf": [{"type": "string", "pattern": budgets.USD}, {"type": "number", "exclusiveMinimum": 0}]
}
_TOKENS: dict[str, Any] = {"anyOf": [{"type": "string", "pattern": budgets.TOKENS}, {"type": "integer", "minimum": 1}]}
UsdBudgets = Annotated[
    tuple[Annotated[str, BeforeValidator(values.usd)], ...],
    BeforeValidator(values.one_or_more),
    WithJsonSchema({"anyOf": [_USD, {"type": "array", "items": _USD}]}),
]
TokenBudgets = Annotated[
    tuple[Annotated[str, BeforeValidator(values.token_budget)], ...],
    BeforeValidator(values.one_or_more),
    WithJsonSchema({"anyOf": [_TOKENS, {"type": "array", "items": _TOKENS}]}),
]
Method = Annotated[str, BeforeValidator(names.method), WithJsonSchema({"enum": [*names.METHODS]})]
Methods = Annotated[tuple[Method, ...], Items]
Origins = Annotated[tuple[Annotated[str, BeforeValidator(addresses.origin)], ...], Items]
Headers = Annotated[tuple[Annotated[str, BeforeValidator(names.header)], ...], Items]
Pattern = Annotated[str, BeforeValidator(values.pattern), WithJsonSchema({"type": ["string", "number", "boolean"]})]
Patterns = Annotated[tuple[Pattern, ...], Items, Field(min_length=1)]

BaseUrl = Annotated[
    str, BeforeValidator(addresses.base_url), WithJsonSchema({"type": "string", "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://"})
]
ApiName = Annotated[str, BeforeValidator(names.api_name)]
Provider = Literal["openai", "anthropic", "google", "mistral", "azure", "bedrock-bearer", "generic"]
ErrorFormat = Literal["auto", "openai", "anthropic", "google", "plain"]


class Section(BaseModel):
    """A mapping of known keys. A key without a value is as good as none."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nothing(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        return {key: value for key, value in given.items() if value is not None or key not in cls.model_fields}


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
    `*` stands for a part of one segment, `/**` at the end for any depth."""
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


class Server(Section):
    """Where the proxy listens, and what it takes from clients."""

    listen: Listen = Field(default=("tcp:8080:interface=127.0.0.1",), min_length=1)
    """Twisted server endpoints, such as `tcp:8080` (all interfaces), `unix:/run/llmproxy.sock:mode=660`,
    `ssl:8443:privateKey=…:certKey=…`, `tls:/etc/llmproxy/certificates:8443` (a folder of PEM files, one for each name),
    `systemd:domain=INET:index=0`."""
    workers: Whole = Field(default=1, ge=1, le=1)
    """Processes that share the work. Only 1 so far: start further daemons on the same store instead."""
    max_head_bytes: Size = 64 * 1024
    """The longest head of a request. Beyond it 431."""
    max_request_bytes: Size = 64 * 1024 * 1024
    """The largest body of a request. Beyond it 413."""
    max_buffered_bytes: Size = 0
    """How much of requests and answers is held in memory at once, in all, for each worker: bodies that are read whole,
    what clients have not taken yet, what the cache gathers. Beyond it 503 `buffers_full`. 0: a quarter of the memory
    that the process may have, at most 512 MiB."""
    head_timeout: Duration = 10.0
    """For the whole head of a request. Then 408."""
    body_timeout: Duration = 30.0
    """For silence in the body of a request. Then 408."""
    keepalive_timeout: Duration = 75.0
    """How long an unused connection of a client is kept."""
    send_timeout: Duration = 60.0
    """How long a client may take less than `min_send_rate` while something waits for it. Then it is cut. The time in
    which a provider sends little does not count."""
    min_send_rate: Size = 1024
    """Bytes a second, on average over `send_timeout`, that a client must take of what waits for it; 0: one byte in
    all that time is enough."""
    max_connections: Whole = Field(default=20000, ge=1)
    """Connections of clients at once, for each worker."""
    max_connections_per_address: Whole = Field(default=5000, ge=0)
    """Connections of one client address at once, for each worker; a further one is closed. 0: no limit but the one
    above. Peers in `trusted_proxies` and on UNIX sockets are not counted: they bring the connections of many."""
    drain_timeout: Duration = 600.0
    """How long requests under way may go on when the process is told to stop."""
    trusted_proxies: Networks = ()
    """Addresses and networks whose `X-Forwarded-For` is believed."""
    debug_headers: Flag = True
    """Whether answers carry `X-Cache-Status`, `X-Cache-Debug`, `Cache-Status`, `X-Upstream-Response-Time` and
    `Server-Timing`."""
    admin_listen: Listen = ()
    """Endpoints of their own for `/manage` and `/admin`, which then do not exist on the public ones."""
    metrics_listen: Listen = ()
    """Endpoints of their own for health and metrics, likewise. There, metrics need no token."""
    public_metrics: Flag = False
    """Whether `/metrics` on the public endpoints needs no management token. It tells what was spent for which model."""
    enforce_project_active: Flag = True
    """Whether the requests of an inactive project are refused."""


class Store(Section):
    """Where projects and tokens are kept."""

    url: Annotated[str, BeforeValidator(addresses.store_url)] = "sqlite:///data/llmproxy.db"
    """The database: `sqlite:///path` (relative to the working directory), `postgresql+psycopg://…`."""
    token_cache_ttl: Duration = 5.0
    """How long a worker remembers a token. A change made elsewhere counts within a second; while the store does not
    answer, what is remembered is used for 5 seconds at most."""
    token_cache_size: Whole = Field(default=10_000, ge=0)
    """How many tokens a worker remembers."""


class Cache(Section):
    """Answers that are kept and given again, where HTTP allows it."""

    enabled: Flag = True
    """Whether anything is cached."""
    backend: Annotated[str, BeforeValidator(values.cache_backend)] = "memory"
    """Where: `memory`, `redis`, or the name of a plugin."""
    redis_url: Annotated[str, BeforeValidator(addresses.own_redis_url)] = ""
    """With `backend: redis`, a server of its own, written as `redis.url`; empty: that one."""
    max_bytes: Size = 256 * 1024 * 1024
    """How much is kept in memory, for each worker."""
    max_object_bytes: Size = 1024 * 1024
    """The largest answer that is kept."""
    default_ttl: Duration = 0.0
    """How long an answer is fresh that does not say so itself; 0: not at all."""
    heuristics: Flag = False
    """Whether an answer that does not say so itself, but when it was last modified, is fresh for a tenth of the time
    since then, at most a day."""
    streams: Flag = False
    """Whether complete streams are kept too."""
    replay: Literal["instant", "timed"] = "instant"
    """How a stream that was kept is given: all at once, or at the pace in which it came, no gap longer than 2 s."""
    coalesce: Flag = True
    """Whether a request waits for the answer to the same one that is under way, if that may be kept."""
    scope: Literal["project", "token", "shared"] = "project"
    """Who may be given an answer that was kept: the same project, the same token, or anybody."""


class Redis(Section):
    """The Redis server, for whatever is told to use it; without that nothing is connected."""

    url: Annotated[str, BeforeValidator(addresses.redis_url)] = "redis://localhost:6379/0"
    """`redis://[[user]:password@]host[:port][/database]`; `rediss://` with TLS; `unix:///path[?db=database]`."""
    key_prefix: Text = "llmproxy:"
    """What every key begins with."""
    timeout: Duration = Field(default=0.05, gt=0)
    """How long a request waits for Redis before it goes on without it."""
    ca_file: Text = ""
    """Further certificate authorities to trust for `rediss://`, a PEM file."""


OnLossPolicy = Literal["local-share", "open", "closed"]


class OnLoss(Section):
    """While Redis cannot be asked: each process allows its part (`local-share`), all pass (`open`), none (`closed`)."""

    requests_per_minute: OnLossPolicy = "local-share"
    """For requests per minute."""
    tokens_per_minute: OnLossPolicy = "local-share"
    """For tokens per minute."""
    concurrency: OnLossPolicy = "local-share"
    """For requests at once."""
    budget_usd: OnLossPolicy = "closed"
    """For budgets in dollars. They are in the store: with `local-share` they are held exactly all the same."""
    budget_tokens: OnLossPolicy = "closed"
    """For budgets in tokens, likewise."""

    def by_name(self) -> dict[str, str]:
        return {name: getattr(self, name) for name in type(self).model_fields}


class LimitSettings(Section):
    """How rate limits and budgets are counted; the limits themselves are given to tokens, projects and APIs."""

    backend: Name = "memory"
    """Where rates and requests at once are counted: `memory` (by each process for itself), `redis` (by all together),
    or the name of a plugin. Budgets are in the store, for all processes on it."""
    redis_url: Annotated[str, BeforeValidator(addresses.own_redis_url)] = ""
    """With `backend: redis`, a server of its own, written as `redis.url`; empty: that one. All databases of a server
    share its memory, and what it evicts for want of it."""
    allow_eviction: Flag = False
    """Whether limits may be counted on a Redis that may evict them (`maxmemory` with a policy other than
    `noeviction`); without it the daemon does not start there, or goes by `on_loss`."""
    on_loss: OnLoss = OnLoss()
    lease: Annotated[Duration, Field(ge=3)] = 30.0
    """In Redis, how long a request counts as under way whose process has died."""
    unknown_price: Literal["refuse", "allow"] = "refuse"
    """What happens where a budget in dollars meets a model without a known price: `refuse` (403), or `allow` for
    nothing."""


class Ledger(Section):
    """One line for every request of a known token: what it used, and what that costs."""

    enabled: Flag = True
    """Whether it is kept."""
    directory: Text = ""
    """Where its journals are, on a disk of this machine; empty: `ledger` under `state_dir`."""
    segment_bytes: Size = Field(default=4 * 1024 * 1024, ge=64 * 1024, le=1024 * 1024 * 1024)
    """The size of one file of a journal; each is allocated before it is needed."""
    max_bytes: Size = Field(default=256 * 1024 * 1024, ge=128 * 1024)
    """How large a journal may get while the store does not answer; beyond that, lines are lost and counted."""
    interval: Duration = Field(default=1.0, gt=0)
    """How often lines are written to the store."""
    keep_lines: Duration = 90 * 86400.0
    """How long single lines are kept; 0: for ever. Sums are kept always."""
    keep_days: Duration = 400 * 86400.0
    """How long sums are kept by day; older days are folded into their months; 0: never."""

    @model_validator(mode="after")
    def _room_for_two(self) -> Self:
        if self.max_bytes < 2 * self.segment_bytes:
            raise ValueError("max_bytes must be twice segment_bytes or more")
        return self


class Price(Section):
    """What a model costs, in USD for a million tokens, where that is not what the provider's price list says."""

    api: Pattern = "*"
    """The API, as a glob."""
    model: Pattern
    """The model that was asked for or that answered, as a glob."""
    input: Amount = 0.0
    """Input tokens."""
    cached: Amount | None = None
    """Input tokens read from the provider's cache; if left out, as any input."""
    cache_write: Amount | None = None
    """Input tokens written to the provider's cache; if left out, as any input."""
    output: Amount = 0.0
    """Output tokens, those of reasoning included."""
    input_audio: Amount | None = None
    """Input tokens of sound; if left out, as any input."""
    output_audio: Amount | None = None
    """Output tokens of sound; if left out, as any output."""
    per_request: Amount = 0.0
    """USD for each request, whatever it uses."""
    units: dict[str, Amount] = {}
    """USD for one of what is billed beside tokens, such as `web_searches: 0.01` or `input_characters: 0.000015`; what
    is left out costs what the provider's list says, and is unknown where that says nothing."""


class Sink(BaseModel):
    """An event sink: the name of a plugin, and whatever that plugin wants to know."""

    model_config = ConfigDict(frozen=True, extra="allow", use_attribute_docstrings=True)

    type: Name
    """The name of the plugin: `file` (with `path`), or one of your own. All other keys are the plugin's."""

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, given: Any) -> Any:
        return _plain(given) if isinstance(given, Mapping) else given

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class Events(Section):
    """One event for every finished request, for whoever observes them."""

    bus: Literal["memory"] = "memory"
    """What carries them."""
    queue_size: Whole = Field(default=10_000, ge=1)
    """Events that may wait; further ones are dropped and counted."""
    sinks: Annotated[tuple[Sink, ...], Items] = ()
    """Where they go."""


class Audit(Section):
    """Acts that must not be lost."""

    file: Text = "data/audit.jsonl"
    """The file that gets a JSON line for each; empty for none."""


class Logging(Section):
    """What the process says about itself, on standard error."""

    format: Literal["json", "console"] = "json"
    """JSON lines, or text for people."""
    level: Literal["debug", "info", "warn", "error", "critical"] = "info"
    """The least important messages that are written."""
    access: Flag = True
    """Whether every request gets a line."""


class Settings(Section):
    """Everything the daemon is told."""

    default_api: Text = ""
    """The API that paths without an API's name belong to. Where there is only one API, it is that one."""
    apis: dict[ApiName, Api] = Field(
        min_length=1,
        json_schema_extra={
            "propertyNames": {"pattern": f"^{names.API_NAME}$", "not": {"enum": [*names.RESERVED_NAMES]}}
        },
    )
    """The APIs by name; the name is also the first segment of an API's addresses: `/openai/v1/models`."""
    server: Server = Server()
    store: Store = Store()
    cache: Cache = Cache()
    redis: Redis = Redis()
    limits: LimitSettings = LimitSettings()
    ledger: Ledger = Ledger()
    prices: tuple[Price, ...] = ()
    """Prices of your own: of those that fit a request, the one that names the model most closely. All others are those
    of the providers' lists."""
    events: Events = Events()
    audit: Audit = Audit()
    logging: Logging = Logging()
    state_dir: Name = "data"
    """Where the process keeps secrets that it made itself, relative to the working directory."""

    @model_validator(mode="before")
    @classmethod
    def _only_api(cls, given: Any) -> Any:
        apis = given.get("apis") if isinstance(given, Mapping) else None
        if not isinstance(apis, Mapping) or len(apis) != 1 or given.get("default_api") not in (None, ""):
            return given
        return {**given, "default_api": next(iter(apis))}

    @model_validator(mode="after")
    def _default_exists(self) -> Self:
        wrong = default_api_problem(self.default_api, self.apis)
        if wrong:
            raise ValueError(wrong)
        return self


def default_api_problem(default: Any, apis: Mapping[str, Any]) -> str:
    """What is wrong with C{default_api}, which must name one of C{apis}; C{""} if nothing is."""
    if not isinstance(default, str) or not default or default in apis:
        return ""
    return f"there is no API named {quoted(default)}{did_you_mean(default, [str(name) for name in apis])}"


def _plain(value: Any) -> Any:
    """Text from outside as the types that it would have had in the file: a plugin's settings have no others."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.meaning if isinstance(value, ExternalText) else value
