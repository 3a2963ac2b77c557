"""What may stand in the settings file, with every default and what it means.

The texts under the fields are what C{docs/settings.md} and C{etc/apis.schema.json} say.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from llmproxy.config import addresses, names, values
from llmproxy.config.alert_settings import AlertSettings
from llmproxy.config.api_settings import Api
from llmproxy.config.auth_settings import AuthSettings, unknown_apis
from llmproxy.config.management_settings import ManagementSettings
from llmproxy.config.plugin_settings import PluginSettings
from llmproxy.config.problems import did_you_mean, quoted
from llmproxy.config.types import (
    Amount,
    ApiName,
    AttributionHeader,
    AttributionName,
    Duration,
    Flag,
    Items,
    Listen,
    Name,
    Networks,
    Pattern,
    Section,
    Size,
    Text,
    Whole,
    Workers,
)


class Server(Section):
    """Where the proxy listens, and what it accepts from clients."""

    listen: Listen = Field(default=("tcp:8080:interface=127.0.0.1",), min_length=1)
    """Twisted server endpoints, such as `tcp:8080` (all interfaces), `unix:/run/llmproxy.sock:mode=660`,
    `ssl:8443:privateKey=…:certKey=…`, `tls:/etc/llmproxy/certificates:8443` (a folder of PEM files, one for each name),
    `systemd:domain=INET:index=0`; `haproxy:tcp:8080` where each connection begins with a header of the PROXY
    protocol."""
    workers: Workers = 1
    """Processes that share the work, at most 256; `auto`: one for each processor that the daemon may use. With more
    than one, a further process supervises them (docs/workers.md)."""
    max_head_bytes: Size = 64 * 1024
    """Longest head of a request. Beyond it 431."""
    max_request_bytes: Size = 64 * 1024 * 1024
    """Largest body of a request. Beyond it 413."""
    max_buffered_bytes: Size = 0
    """How much of requests and responses may be in memory, for each worker: bodies that are read whole, what clients
    have not read yet, what the cache gathers. Beyond it 503 `buffers_full`. 0: a quarter of the memory that the process
    may have, at most 512 MiB."""
    head_timeout: Duration = 10.0
    """For the complete head of a request. Then 408."""
    body_timeout: Duration = 30.0
    """Longest time without progress in the body of a request. Then 408."""
    keepalive_timeout: Duration = 75.0
    """How long an idle client connection is kept open."""
    send_timeout: Duration = 60.0
    """How long a client may read less than `min_send_rate` while data waits for it. Then its connection is aborted.
    Time in which the provider sends little does not count."""
    min_send_rate: Size = 1024
    """Bytes per second, on average over `send_timeout`, that a client must read of what waits for it; 0: one byte in
    all that time is enough."""
    max_connections: Whole = Field(default=20000, ge=1)
    """Open client connections, for each worker."""
    max_connections_per_address: Whole = Field(default=5000, ge=0)
    """Open connections of one client address, for each worker; a further one is closed. 0: no limit but the one above.
    Peers in `trusted_proxies` and on UNIX sockets are not counted: they carry the connections of many."""
    drain_timeout: Duration = 600.0
    """How long requests in flight may continue when the process is told to stop."""
    drain_delay: Annotated[Duration, Field(le=3600)] = 0.0
    """How long the listeners stay open when the process is told to stop, while `/ready` responds with 503 already: so
    that load balancers have noticed before connections are refused."""
    underscores_in_headers: Annotated[tuple[Annotated[str, BeforeValidator(names.underscored_header)], ...], Items] = (
        "session_id",
        "conversation_id",
        "thread_id",
    )
    """Names of header fields with an underscore that requests may have, such as those by which Codex names its session.
    A request with any other gets 400: gateways that make variables of fields take `X_Y` for `X-Y`."""
    trusted_proxies: Networks = ()
    """Addresses and networks whose `X-Forwarded-For` is believed."""
    debug_headers: Flag = True
    """Whether responses carry `X-Cache-Status`, `X-Cache-Debug`, `Cache-Status`, `X-Upstream-Response-Time` and
    `Server-Timing`."""
    fast_path: Flag = True
    """Whether a request whose head has been seen before, except for fields that differ each time, reuses the decisions
    made then. Changes nothing but the time it takes."""
    admin_listen: Listen = ()
    """Separate endpoints for `/manage` and `/admin`, which then do not exist on the public ones."""
    metrics_listen: Listen = ()
    """Separate endpoints for health and metrics, likewise. There, metrics need no token."""
    public_metrics: Flag = False
    """Whether `/metrics` on the public endpoints needs no management token. It shows what was spent for which model."""
    enforce_project_active: Flag = True
    """Whether requests of an inactive project are rejected."""


class StoreSettings(Section):
    """Where projects, tokens, budgets and the ledger are stored."""

    url: Annotated[str, BeforeValidator(addresses.store_url)] = "sqlite:///data/llmproxy.db"
    """The database: `sqlite:///path` (relative to the working directory), `postgresql+psycopg://…`, with user and
    password percent-encoded (`@` as `%40`). Each process opens up to 14 connections to PostgreSQL."""
    token_cache_ttl: Duration | None = None
    """How long a worker caches a token and a project's provider keys at most. Left out: 5 minutes, and 5 seconds for
    tokens of other issuers. A change made elsewhere takes effect within a second; while the store does not reply,
    cached tokens are used for 5 seconds at most."""
    token_cache_size: Whole = Field(default=10_000, ge=0)
    """How many tokens a worker caches."""

    def cache_seconds(self, *, announced: bool) -> float:
        """C{token_cache_ttl}; by default, that of what is C{announced} when it changes, or of what is not."""
        return (300.0 if announced else 5.0) if self.token_cache_ttl is None else self.token_cache_ttl


class Cache(Section):
    """Responses that are stored and reused, where HTTP allows it."""

    enabled: Flag = True
    """Whether anything is cached."""
    backend: Annotated[str, BeforeValidator(values.cache_backend)] = "memory"
    """Where: `memory`, `redis`, or the name of a plugin."""
    redis_url: Annotated[str, BeforeValidator(addresses.own_redis_url)] = ""
    """With `backend: redis`, a server of its own, written as `redis.url`; empty: that one."""
    max_bytes: Size = 256 * 1024 * 1024
    """How much is stored in memory, for each worker."""
    max_object_bytes: Size = 1024 * 1024
    """The largest response that is stored."""
    default_ttl: Duration = 0.0
    """How long a response is fresh that does not say so itself; 0: not at all."""
    heuristics: Flag = False
    """Whether a response that only says when it was last modified is fresh for a tenth of the time since then, at most
    a day."""
    streams: Flag = False
    """Whether complete streams are stored too."""
    replay: Literal["instant", "timed"] = "instant"
    """How a stored stream is served: immediately, or at its original pace with no gap above 2 s."""
    coalesce: Flag = True
    """Whether identical concurrent requests are collapsed into one, if its response may be stored."""
    scope: Literal["project", "token", "shared"] = "project"
    """Who is served a stored response: the same project, the same token, or anybody."""


class Redis(Section):
    """The Redis server, for whatever is set to use it; otherwise nothing connects to it."""

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
    """While Redis is unreachable: each process allows its share (`local-share`), all pass (`open`), none (`closed`)."""

    requests_per_minute: OnLossPolicy = "local-share"
    """For requests per minute."""
    tokens_per_minute: OnLossPolicy = "local-share"
    """For tokens per minute."""
    concurrency: OnLossPolicy = "local-share"
    """For concurrency."""
    budget_usd: OnLossPolicy = "closed"
    """For budgets in dollars. They are in the store: with `local-share` they are enforced exactly all the same."""
    budget_tokens: OnLossPolicy = "closed"
    """For budgets in tokens, likewise."""

    def by_name(self) -> dict[str, str]:
        return {name: getattr(self, name) for name in type(self).model_fields}


class LimitSettings(Section):
    """How rate limits and budgets are counted; the limits themselves belong to tokens, projects and APIs."""

    backend: Name = "memory"
    """Where rates and concurrency are counted: `memory` (by each process for itself), `redis` (by all together), or the
    name of a plugin. Budgets are in the store, for all processes on it."""
    redis_url: Annotated[str, BeforeValidator(addresses.own_redis_url)] = ""
    """With `backend: redis`, a server of its own, written as `redis.url`; empty: that one. All databases of a server
    share its memory and its eviction policy."""
    allow_eviction: Flag = False
    """Whether limits may be counted on a Redis that may evict them (`maxmemory` with a policy other than `noeviction`).
    Without it the daemon does not start there, or follows `on_loss`."""
    on_loss: OnLoss = OnLoss()
    lease: Annotated[Duration, Field(ge=3)] = 30.0
    """In Redis, how long a request of a process that has died counts as in flight."""
    unknown_price: Literal["refuse", "allow"] = "refuse"
    """What happens where a budget in dollars meets a model without a known price: `refuse` (403), or `allow`, reserving
    nothing."""


class LedgerSettings(Section):
    """One line for every request of a known token: what it used, and what that costs."""

    enabled: Flag = True
    """Whether there is one."""
    directory: Text = ""
    """Directory of its journals, on a local disk; empty: `ledger` under `state_dir`."""
    segment_bytes: Size = Field(default=4 * 1024 * 1024, ge=64 * 1024, le=1024 * 1024 * 1024)
    """The size of one file of a journal; each is allocated before it is needed."""
    max_bytes: Size = Field(default=256 * 1024 * 1024, ge=128 * 1024)
    """How large a journal may get while the store does not reply; beyond that, lines are lost and counted."""
    interval: Duration = Field(default=1.0, gt=0)
    """How often lines are written to the store."""
    keep_lines: Duration = 90 * 86400.0
    """How long single lines are stored; 0: for ever. Sums are never removed."""
    attribution_values: Whole = Field(default=1000, ge=1, le=100_000)
    """How many values that clients claim of one attribution are added up by themselves, for each project and day;
    further ones are added up as `(other)`, and counted. What tokens fix is always added up by itself."""
    keep_days: Duration = 400 * 86400.0
    """How long sums are stored by day; older days are rolled up into their months; 0: never."""

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
    """The model that was requested or that responded, as a glob."""
    input: Amount = 0.0
    """Input tokens."""
    cached: Amount | None = None
    """Input tokens read from the provider's cache; if left out, as any input."""
    cache_write: Amount | None = None
    """Input tokens written to the provider's cache; if left out, as any input."""
    output: Amount = 0.0
    """Output tokens, those of reasoning included."""
    input_audio: Amount | None = None
    """Input tokens of audio; if left out, as any input."""
    output_audio: Amount | None = None
    """Output tokens of audio; if left out, as any output."""
    per_request: Amount = 0.0
    """USD for each request, whatever it uses."""
    units: dict[str, Amount] = Field(default={})
    """USD for one of what is billed beside tokens, such as `web_searches: 0.01` or `input_characters: 0.000015`; what
    is left out costs what the provider's list says, and is unknown where that says nothing."""


class Sink(PluginSettings):
    """An event sink: the name of a plugin, and the settings of that plugin."""

    type: Name
    """The name of the plugin: `file` (with `path`), or one of your own. All other keys are the plugin's."""


class SecretStore(PluginSettings):
    """Where secrets are kept outside: the name of a plugin, and the settings of that plugin."""

    type: Name
    """The name of the plugin; a reference to it begins with that name: `vault:team-a/openai`. All other keys are the
    plugin's."""


class Secrets(Section):
    """What provider keys may refer to, instead of being stored: `env:NAME`, `file:/path`, or `<plugin>:<name>`."""

    environment: Annotated[tuple[Pattern, ...], Items] = ("*_API_KEY",)
    """Globs of the environment variables that `env:NAME` may name; `[]`: none. Those of llmproxy itself never can."""
    directories: Annotated[tuple[Annotated[str, BeforeValidator(values.directory)], ...], Items] = ("/run/secrets",)
    """Directories, with all below them, whose files `file:/path` may name; `[]`: none. Links are followed first."""
    refresh: Duration = Field(default=60.0, ge=1)
    """How often all references are checked for the ready page, and how long the value of a plugin is used. A file that
    changes is read again within two seconds."""
    stores: Annotated[tuple[SecretStore, ...], Items] = ()
    """The plugins that references may name."""


class Events(Section):
    """One event for every finished request."""

    bus: Literal["memory"] = "memory"
    """What delivers them."""
    queue_size: Whole = Field(default=10_000, ge=1)
    """Events that may wait for a sink; further ones are dropped and counted."""
    sinks: Annotated[tuple[Sink, ...], Items] = ()
    """Where they go."""


class Audit(Section):
    """Changes and refusals that must not be lost."""

    file: Text = "data/audit.jsonl"
    """File that gets a JSON line for each; empty: none."""
    fsync: Literal["always", "never"] = "always"
    """Whether an entry counts as written only when it is on the disk (`always`), or when the system has it (`never`),
    which a power failure may still lose."""
    store: Flag = True
    """Whether entries go to the store too, where all processes' are together, to be filtered and searched."""
    keep: Duration = 400 * 86400.0
    """How long the store keeps them; 0: for ever. Of the file nothing is removed."""


class Logging(Section):
    """What the process logs, on standard output."""

    format: Literal["json", "console"] = "json"
    """JSON lines, or text for people."""
    level: Literal["debug", "info", "warn", "error", "critical"] = "info"
    """The least severe level that is written."""
    access: Flag = True
    """Whether every request is logged, in one line."""


class Settings(Section):
    """All settings of the daemon."""

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
    auth: AuthSettings = AuthSettings()
    management: ManagementSettings = ManagementSettings()
    store: StoreSettings = StoreSettings()
    cache: Cache = Cache()
    redis: Redis = Redis()
    limits: LimitSettings = LimitSettings()
    alerts: AlertSettings = AlertSettings()
    ledger: LedgerSettings = LedgerSettings()
    secrets: Secrets = Secrets()
    prices: tuple[Price, ...] = ()
    """Prices of your own: of those that match a request, the one that names the model most closely. All others come
    from the providers' lists."""
    attribution: dict[AttributionName, AttributionHeader] = Field(
        default={},
        max_length=8,
        json_schema_extra={"propertyNames": {"pattern": f"^{names.ATTRIBUTION_NAME}$"}},
    )
    """Header fields by which requests are attributed, by names of your own: `{user: X-User}`. Their values are in the
    ledger, in events and in usage reports, as claimed by the client unless its token's metadata has the name."""
    events: Events = Events()
    audit: Audit = Audit()
    logging: Logging = Logging()
    state_dir: Name = "data"
    """Directory for secrets that the process generates and for journals, relative to the working directory."""

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

    @model_validator(mode="after")
    def _sessions_are_let_in(self) -> Self:
        for api, settings in self.apis.items():
            for name in settings.affinity.headers if "headers" in settings.affinity.model_fields_set else ():
                if "_" in name and name not in self.server.underscores_in_headers:
                    where = f"apis.{api}.affinity.headers"
                    raise ValueError(f"{where}: {quoted(name)} must be in server.underscores_in_headers as well")
        return self

    @model_validator(mode="after")
    def _apis_exist(self) -> Self:
        for where, name in unknown_apis(self.auth, self.apis):
            raise ValueError(f"{where}: there is no API named {quoted(name)}{did_you_mean(name, list(self.apis))}")
        return self


def default_api_problem(default: Any, apis: Mapping[str, Any]) -> str:
    """What is wrong with C{default_api}, which must name one of C{apis}; C{""} if nothing is."""
    if not isinstance(default, str) or not default or default in apis:
        return ""
    return f"there is no API named {quoted(default)}{did_you_mean(default, [str(name) for name in apis])}"
