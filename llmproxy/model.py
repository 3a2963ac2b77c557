"""The frozen values that pass between the layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

from llmproxy.access_policy import ALL_ALLOWED, AccessPolicy

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Budget:
    """What may be spent in a period.

    @ivar amount: Nano-dollars or tokens; whole, so that sums stay exact.
    @ivar period: C{day} or C{month} (UTC calendar), or C{lifetime}.
    """

    amount: int
    period: str


@dataclass(frozen=True, slots=True)
class Allowance:
    """The limits of a token, a project or an API; C{None} and C{()} stand for none.

    @ivar requests_per_minute: In any minute, not only in those of the clock. Likewise C{tokens_per_minute}.
    @ivar concurrency: Requests at once.
    @ivar budget_usd: At most one budget for each period; likewise C{budget_tokens}.
    @ivar soft_budget_usd: Those that only warn: they refuse nothing. Likewise C{soft_budget_tokens}.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None
    budget_usd: tuple[Budget, ...] = ()
    budget_tokens: tuple[Budget, ...] = ()
    soft_budget_usd: tuple[Budget, ...] = ()
    soft_budget_tokens: tuple[Budget, ...] = ()


UNLIMITED = Allowance()


class Claim(NamedTuple):
    """What a request asks of one limit.

    @ivar key: Names the limit, and the period where it has one: all who give the same key share it.
    @ivar kind: C{rate} (so much in any minute), C{lease} (so many at once) or C{budget} (so much in all).
    @ivar amount: How much of it the request can take at most.
    @ivar ends: When the budget's period ends, in seconds since the epoch; C{0} for never.
    @ivar on_loss: What to do while the counters cannot be reached: C{local-share}, C{open} or C{closed}.
    """

    key: str
    kind: str
    limit: int
    amount: int
    ends: float = 0.0
    on_loss: str = "closed"


class Verdict(NamedTuple):
    """Whether all claims of a request were granted; otherwise none was.

    @ivar refused: The index of the claim that was not; C{None} where all were.
    @ivar wait: Seconds until a retry may succeed; C{None} where that is not known.
    @ivar lost: Whether it was rejected only because the counters cannot be reached.
    @ivar remaining: What is left of each, after this request; likewise C{resets}, the seconds until a rate is whole.
    @ivar ticket: To be passed to C{settle} when the request is over; opaque to everybody but the counters.
    """

    refused: int | None = None
    wait: float | None = None
    lost: bool = False
    remaining: tuple[int, ...] = ()
    resets: tuple[float, ...] = ()
    ticket: Any = None


class Advance(NamedTuple):
    """A part of a budget that a process has reserved to spend on its own.

    @ivar amount: How much that is; 0 where less was left than it needed.
    @ivar spent: What the budget has lost now, this part included.
    @ivar elsewhere: Where less was reserved than was wanted: what other processes hold, some of which may come back.
    """

    amount: int
    spent: int
    elsewhere: int = 0


Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Group:
    """A group of projects, such as an organisation, a team in it, or a purpose.

    @ivar parent_id: The group that it belongs to; C{""} for none.
    @ivar allowance: Limits for all projects in it and below it together.
    @ivar projects: How many projects are in it, those further below not counted.
    """

    id: str
    name: str
    parent_id: str = ""
    allowance: Allowance = UNLIMITED
    projects: int = 0
    created_at: float = 0.0
    updated_at: float = 0.0
    revision: int = 0


class GroupLimits(NamedTuple):
    """The limits of a group above a project."""

    id: str
    name: str
    allowance: Allowance


@dataclass(frozen=True, slots=True)
class Project:
    """Owns provider keys, one per API, and the tokens made for it.

    @ivar api_keys: API name to provider key, in the clear, or to a L{SecretReference}: never filled when listing.
    @ivar masked_keys: API name to the key's first and last characters, or to the whole reference, fit to be shown.
    @ivar further_keys: API name to the keys that it has beside the one in C{api_keys}; only for APIs named there, whose
        further keys are all replaced. C{masked_further_keys} likewise.
    @ivar metadata: Free texts by free names, in the order of the names; C{labels}: words to find it by.
    @ivar policy: Which requests its tokens may make.
    @ivar group_id: The L{Group} that it is in; C{""} for none.
    @ivar created_at: Seconds since the epoch, as are all C{_at} below.
    @ivar revision: How often it was changed, from 1; 0 where that does not matter.
    """

    id: str
    name: str
    active: bool = True
    api_keys: Mapping[str, str] = field(default_factory=dict, repr=False)
    masked_keys: Mapping[str, str] = field(default_factory=dict)
    further_keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False)
    masked_further_keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    allowance: Allowance = UNLIMITED
    labels: tuple[str, ...] = ()
    metadata: Metadata = ()
    policy: AccessPolicy = ALL_ALLOWED
    group_id: str = ""
    created_at: float = 0.0
    updated_at: float = 0.0
    deactivated_at: float | None = None
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Token:
    """The properties of an issued token; never the token itself.

    @ivar prefix: The first characters of the token, enough to recognise it in a list.
    @ivar max_requests: Requests allowed in its lifetime, or C{None} for no limit.
    @ivar request_count: Requests counted so far; C{cache_hits}: those that were served from the cache, which
        count for no limit.
    @ivar apis: Names of the APIs it may call; empty means all. Likewise C{endpoints}, C{models} (globs) and C{ips}
        (networks).
    @ivar policy: What else its requests must keep to; of these lists it has none itself.
    @ivar labels: As of a L{Project}, like C{metadata} and C{revision}.
    @ivar previous_expires_at: Until when the secret before the last rotation is valid; C{None} where there was none.
    """

    id: str
    project_id: str
    name: str = ""
    prefix: str = ""
    active: bool = True
    expires_at: float | None = None
    max_requests: int | None = None
    request_count: int = 0
    cache_hits: int = 0
    apis: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    ips: tuple[str, ...] = ()
    policy: AccessPolicy = ALL_ALLOWED
    allowance: Allowance = UNLIMITED
    labels: tuple[str, ...] = ()
    metadata: Metadata = ()
    created_at: float = 0.0
    last_used_at: float | None = None
    deactivated_at: float | None = None
    revision: int = 0
    previous_expires_at: float | None = None


class ListFilter(NamedTuple):
    """Which of the projects, or of the tokens, a list is to have.

    @ivar projects: Ids of projects; C{None} for all.
    @ivar active: Only those that are, or only those that are not.
    @ivar search: Only those whose name has this in it, in any case.
    @ivar labels: Only those that have all of these: labels, or C{name=text} of their metadata.
    @ivar named: Only those whose id or name is exactly this.
    @ivar ids: Only those of these ids; C{None} for all.
    """

    projects: tuple[str, ...] | None = None
    active: bool | None = None
    search: str = ""
    labels: tuple[str, ...] = ()
    named: str = ""
    ids: tuple[str, ...] | None = None


ALL_OF_THEM = ListFilter()


class PageRequest(NamedTuple):
    """Which part of a list is requested: at most C{limit} items, after C{cursor} or, without one, after C{offset}.

    @ivar cursor: A page's C{next_cursor}.
    """

    limit: int = 100
    offset: int = 0
    cursor: str = ""


class Page(NamedTuple, Generic[T]):
    """A part of a list.

    @ivar total: How many items the whole list has; C{None} where it was not counted.
    @ivar next_cursor: Where the next page begins; C{""} where this is the last.
    """

    items: list[T]
    total: int | None = None
    next_cursor: str = ""


@dataclass(frozen=True, slots=True)
class Changes:
    """What has changed in a store since an epoch.

    @ivar epoch: The number of the last change; the next poll begins there.
    @ivar projects: The projects that, or whose tokens, have changed; C{None}: any may have.
    """

    epoch: int
    projects: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Grant:
    """A validated token with its project: what its bearer may do, as of the moment it was looked up.

    @ivar project_active: C{None} where the validator does not know; then L{IProviderKeys} is asked.
    @ivar allowance: The token's limits, and C{project_allowance} those of its project; C{None} where it has none.
    @ivar policy: What else the token allows, and C{project_policy} what its project does; C{None}: everything.
    @ivar metadata: The token's; C{issued_at}: when another issuer made it, in seconds since the epoch.
    @ivar groups: The groups above its project that have limits, the nearest first.
    """

    project_id: str
    token_id: str = ""
    project_active: bool | None = None
    expires_at: float | None = None
    max_requests: int | None = None
    apis: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    ips: tuple[str, ...] = ()
    allowance: Allowance | None = None
    project_allowance: Allowance | None = None
    policy: AccessPolicy | None = None
    project_policy: AccessPolicy | None = None
    metadata: Metadata = ()
    groups: tuple[GroupLimits, ...] = ()
    issued_at: float | None = None


_NOTHING: Mapping[str, int] = {}


class Usage(NamedTuple):
    """What one response used, in tokens, and what that costs.

    @ivar input_tokens: All input: what was read from the provider's cache and what was written to it included.
    @ivar output_tokens: All output, reasoning included.
    @ivar cost_usd: C{None} where no price is known; never 0 for that.
    @ivar basis: C{exact} as the provider counted, or as the request says where that is what is billed; C{estimated} by
        its size where the provider reported nothing; C{unknown} where something is billed that cannot be derived;
        C{pending} where a later response will report it; C{none} where nothing was used.
    @ivar model: The model that responded, as the provider calls it.
    @ivar details: What else was counted, by the name of its unit: audio and image tokens, searches, seconds.
    """

    input_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cost_usd: float | None = None
    basis: str = "none"
    model: str = ""
    details: Mapping[str, int] = _NOTHING


class RequestRecord(NamedTuple):
    """One finished request: what the access log, the metrics and an observer's event are made of.

    Times are seconds; C{started_at} since the epoch, the rest as durations. Never holds a secret or a body.

    @ivar endpoint: The allow-list pattern that matched, such as C{/v1/chat/completions}; C{""} if none did.
    @ivar path: The raw path, without the query.
    @ivar model: The model the client asked for, or C{""}.
    @ivar status: The status sent to the client; C{499} where it left before one was sent.
    @ivar outcome: C{complete}, C{refused}, C{failed} (also a 200 that is or ends in an error), C{cancelled} (the client
        left) or C{truncated} (the provider broke off, or this process was stopped).
    @ivar first_byte: From the request's arrival to the provider's first byte, or C{None} if there was none.
    @ivar auth_time: What its credential, the policies and its body took, as far as that must be known before it is let
        through; C{queue_time}: for how long it waited: to be begun, at its limits, for a connection to its provider.
    @ivar error: The code of the error response, or of the error that the provider's 200 was or ended in; C{""}.
    @ivar attempts: How often it was sent to a provider; C{attempted}: where there was more than one, what came of each:
        C{0/1:429 1/0:200} for the numbers of upstream and key, and a status or a word.
    @ivar answered: The model that responded, as the provider calls it.
    @ivar basis: Where the tokens come from; they and the cost are as in L{Usage}.
    @ivar attribution: Whom it is attributed to, as L{llmproxy.base.attribution} writes it; C{""} where nothing is.
    @ivar steps: Its way, as L{llmproxy.base.request_steps} writes it; C{""} where the times say all.
    """

    request_id: str
    started_at: float
    duration: float
    method: str
    path: str
    status: int
    outcome: str
    api: str = ""
    endpoint: str = ""
    project_id: str = ""
    token_id: str = ""
    model: str = ""
    stream: bool = False
    bytes_in: int = 0
    bytes_out: int = 0
    first_byte: float | None = None
    upstream_time: float | None = None
    auth_time: float = 0.0
    queue_time: float = 0.0
    upstream_status: int | None = None
    cache: str = "disabled"
    error: str = ""
    client: str = ""
    user_agent: str = ""
    sdk_retry: int = 0
    attempts: int = 0
    attempted: str = ""
    answered: str = ""
    basis: str = ""
    input_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cost_usd: float | None = None
    attribution: str = ""
    steps: str = ""


class LedgerLine(NamedTuple):
    """What a request used, as the ledger has it: one for every request with a valid token, however it ended.

    @ivar id: Unique, wherever the proxy runs.
    @ivar at: When the request arrived, in seconds since the epoch; C{duration} in seconds.
    @ivar model: The model that was asked for; C{answered} the one that responded.
    @ivar outcome: C{exact} (the provider's own counts), C{estimated}, C{cancelled} (the client left), C{truncated} (the
        response broke off), C{failed} (an error response), C{cached}, C{pending} (a result that is reported later).
    @ivar basis: Where the counts come from; see L{Usage}.
    @ivar upstream_status: The status of the provider's response, or C{None} where there was none.
    @ivar attribution: As of a L{RequestRecord}, like C{attempts} and C{attempted}.
    """

    id: str
    at: float
    duration: float = 0.0
    request_id: str = ""
    project_id: str = ""
    token_id: str = ""
    api: str = ""
    endpoint: str = ""
    model: str = ""
    answered: str = ""
    outcome: str = ""
    basis: str = "none"
    error: str = ""
    status: int = 0
    upstream_status: int | None = None
    stream: bool = False
    input_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cost_usd: float | None = None
    bytes_in: int = 0
    bytes_out: int = 0
    attribution: str = ""
    attempts: int = 0
    attempted: str = ""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """An action that must not be lost: who did what to what, and how it ended.

    @ivar action: Such as C{project.create}, C{token.revoke}, C{request.refused}.
    @ivar actor: C{management} for the management token, C{key:<id>} for a management key, C{token:<id>} or C{proxy}.
    @ivar details: Plain JSON values; no secret.
    """

    at: float
    action: str
    actor: str
    outcome: str = "success"
    project_id: str = ""
    token_id: str = ""
    request_id: str = ""
    client: str = ""
    details: Mapping[str, object] = field(default_factory=dict)


class BudgetAlert(NamedTuple):
    """A part of a budget has been spent of which somebody is to know.

    @ivar id: Unique; C{at}: seconds since the epoch.
    @ivar kind: C{threshold}, or C{refusal}: a request was refused because too little was left.
    @ivar threshold: In percent of the budget; 0 for a refusal.
    @ivar soft: Whether the budget only warns.
    @ivar owner: C{token}, C{project}, C{group} or C{api}, with its id, and its name where that is known.
    @ivar project_id: C{""} where it is none's.
    @ivar budget: Names the budget and its period among all; C{period}: C{day}, C{month} or C{lifetime}.
    @ivar unit: C{usd}, then C{limit} and C{spent} are in nano-dollars, or C{tokens}.
    @ivar ends: When the period ends, in seconds since the epoch; C{0.0} for never.
    @ivar delivered_at: When the webhook's receiver had it; C{None} where it has not.
    """

    id: str
    at: float
    kind: str
    threshold: int
    soft: bool
    owner: str
    owner_id: str
    budget: str
    unit: str
    period: str
    limit: int
    spent: int
    ends: float
    name: str = ""
    project_id: str = ""
    delivered_at: float | None = None


@dataclass(frozen=True, slots=True)
class CacheUsage:
    """How much a cache holds.

    @ivar size: Bytes, keys and bookkeeping included where they are known.
    @ivar evicted: Entries that were evicted before they expired, since the cache was made.
    """

    entries: int = 0
    size: int = 0
    evicted: int = 0
