"""The interfaces that others may implement. Every method that waits returns a Deferred.

The docstrings here are the documentation; implementations do not repeat them. Where a method promises a
C{Deferred}, the pipeline accepts any awaitable, so an C{async def} will do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from llmproxy.base.ttl_cache import CacheEntry
from llmproxy.instruments import HealthCheck, Instrument
from llmproxy.model import (
    ALL_OF_THEM,
    Advance,
    AuditEntry,
    CacheUsage,
    Claim,
    Grant,
    ListFilter,
    Page,
    PageRequest,
    Project,
    RequestRecord,
    Token,
    Verdict,
)


class IInstrumented(Interface):
    """Optional, for services and for what plugins make: it has figures to show among the metrics.

    What an event sink shows is labelled with the sink's name: there C{read} returns one figure.
    """

    def instruments() -> Iterable[Instrument]:
        """Its figures; called once. Names must be free, or carry a label whose values do not meet."""


class IHealthChecked(Interface):
    """Optional, likewise: it has states to show on the ready page."""

    def health_checks() -> Iterable[HealthCheck]:
        """Its states; called once."""


class IOpenable(Interface):
    """Optional, for services: there is something to do before anything listens."""

    def open() -> Deferred[None]:
        """Fire when that is done, once the store is open; a failure keeps the daemon from starting."""


class ITokenValidator(Interface):
    """Validates tokens, and counts their uses."""

    def validate_token(token: str) -> Deferred[Grant | str]:
        """Fire with the token's L{Grant}; a bare project id will do where nothing else is known of it.

        Fail with L{errors.TokenNotFound}, L{errors.TokenInactive} or L{errors.TokenExpired} where it may not be
        used (401), with L{errors.StoreUnavailable} where that could not be determined (503). Any other failure is
        reported as the latter.
        """

    def validate_token_with_tracking(token: str) -> Deferred[Grant | str]:
        """As C{validate_token}, and count one use.

        Fail with L{errors.QuotaExceeded} where C{max_requests} are used up: never more than that many calls
        succeed, however many run at once, in however many processes.
        """


class ITokenValidatorFactory(Interface):
    """A twistd plugin that makes validators of tokens that this proxy has not issued.

    The settings name it: C{auth: {validators: [{type: <name>, …}]}}. What it makes fails with L{errors.TokenNotFound}
    where a token is none of its own: then the next is asked. Grants are cached for C{store.token_cache_ttl} (left out:
    5 seconds), and dropped when their project changes, when they expire, and, of an L{IWatchable}, when that says so.
    One that is an C{IService} is started and stopped with the daemon.
    """

    name = Attribute("The C{type} in the settings (str).")

    def validator(settings: Mapping[str, Any], reactor: Any, now: Callable[[], float]) -> ITokenValidator:
        """Make one from its entry in the settings, without C{type} and C{apis}; L{ValueError} says what is wrong.

        C{now} tells seconds since the epoch.
        """


class IImmediateValidator(ITokenValidator):
    """A validator that keeps grants in memory, so that the usual request waits for nothing.

    Optional: where a validator provides this, requests use it; what it cannot tell at once is asked of the methods that
    return a Deferred. No method here may wait or fail.
    """

    def key(token: str) -> bytes:
        """What the token is kept under: made once for a request, and passed to the methods below."""

    def grant_now(key: bytes) -> Grant | None:
        """The grant, where it is in memory and has not expired; C{None} where C{validate_from} must be asked."""

    def use_now(key: bytes) -> Grant | None:
        """As C{grant_now}, and count one use; C{None} where C{validate_token_with_tracking} must be asked to."""

    def entry(key: bytes) -> CacheEntry[Grant] | None:
        """The grant, where it is in memory, and until when it is good there; it may have expired by itself."""

    def leaves_uses_to_ledger(grant: Grant) -> bool:
        """Whether C{use_now} counts no use of this grant, as the ledger does; then it need not be asked for each."""

    def undo_use(key: bytes, grant: Grant) -> None:
        """The use that was counted last, now or with waiting, was none: nothing was sent."""

    def count_cache_hit(token_id: str) -> None:
        """Count one request that was served from the cache."""

    def validate_from(token: str, client: str) -> Deferred[Grant | str]:
        """As C{validate_token}, on behalf of the client at this address."""


class IProviderKeys(Interface):
    """Knows each project's keys: all that forwarding a request asks of a store."""

    def get_api_key_for_project(project_id: str, api: str = "") -> Deferred[str]:
        """Fire with the provider's key for the API of that name (C{""}: the only one).

        Fail with L{errors.UpstreamAuthError} where there is none, L{errors.StoreUnavailable} where the store is down.
        """

    def get_project_active(project_id: str) -> Deferred[bool]:
        """Fire with whether the project may be used; L{errors.NotFound} where there is no such project."""


class IProviderKeyLists(IProviderKeys):
    """Knows providers' keys, of which a project may have several for one API."""

    def get_api_keys_for_project(project_id: str, api: str = "") -> Deferred[Sequence[str]]:
        """As C{get_api_key_for_project}, with all of the project's keys for the API, in their order."""


class IProjectStore(IProviderKeys):
    """Stores projects and the provider keys they own."""

    def list_projects() -> Deferred[list[Project]]:
        """Fire with all projects, oldest first, without their keys."""

    def project_page(request: PageRequest, wanted: ListFilter = ALL_OF_THEM) -> Deferred[Page[Project]]:
        """Fire with one page of them, in the same order; L{errors.Invalid} where the cursor is malformed."""

    def create_project(project: Project) -> Deferred[Project]:
        """Store a new project; fire with what was stored. L{errors.Conflict} where the id is taken."""

    def get_project_by_id(project_id: str) -> Deferred[Project]:
        """Fire with the project, without its keys; L{errors.NotFound} where there is none."""

    def update_project(project: Project) -> Deferred[Project]:
        """Replace name, active and those keys that C{api_keys} names (C{""} removes one); fire with the result.

        L{errors.NotFound} where there is none of that id, L{errors.ChangedMeanwhile} where its C{revision} is not 0 and
        another one is stored.
        """

    def delete_project(project_id: str) -> Deferred[None]:
        """Remove the project with its keys and tokens; L{errors.NotFound} where there is none."""


class ITokenStore(Interface):
    """Stores issued tokens; of the tokens themselves only keyed hashes."""

    def create_token(token: Token) -> Deferred[tuple[Token, str]]:
        """Issue a token with these properties; fire with what was stored and the secret, which is never shown again.

        C{id}, C{prefix} and C{created_at} are chosen by the store. L{errors.NotFound} where the project is not there.
        """

    def get_token(token_id: str) -> Deferred[Token]:
        """Fire with the token of this id; L{errors.NotFound} where there is none."""

    def list_tokens(project_id: str | None = None) -> Deferred[list[Token]]:
        """Fire with all tokens, or one project's, oldest first."""

    def token_page(request: PageRequest, wanted: ListFilter = ALL_OF_THEM) -> Deferred[Page[Token]]:
        """Fire with one page of them, in the same order; L{errors.Invalid} where the cursor is malformed."""

    def update_token(token: Token) -> Deferred[Token]:
        """Replace what an operator may change: not id, project, prefix or counts.

        L{errors.NotFound} as above, and L{errors.ChangedMeanwhile} as for a project.
        """

    def deactivate_token(token_id: str) -> Deferred[Token]:
        """Deactivate, and keep the time it was first done; L{errors.NotFound} where there is none."""

    def revoke_project_tokens(project_id: str) -> Deferred[int]:
        """Deactivate all tokens of the project; fire with how many were active. L{errors.NotFound} as above."""

    def count_uses(uses: Mapping[str, tuple[int, float]]) -> Deferred[None]:
        """Add to the counts of tokens that have no limit: token id to (how many, time of the last)."""

    def count_cache_hits(hits: Mapping[str, tuple[int, float]]) -> Deferred[None]:
        """Likewise to C{cache_hits}, of any tokens."""


class IBudgetStore(Interface):
    """Stores what was spent of budgets, by the budget's key, for all processes that share the store."""

    def take_budget(key: str, least: int, most: int, limit: int, ends: float) -> Deferred[Advance]:
        """Spend between C{least} and C{most} in advance, but never so that more than C{limit} are spent in all.

        Fire with how much that was, 0 where C{least} is more than is left. Exact however many processes call at once.
        L{errors.StoreUnavailable} where the store does not respond.

        @param ends: When the budget's period ends, after which it may be forgotten; C{0.0} for never.
        """

    def give_budgets(amounts: Mapping[str, int]) -> Deferred[None]:
        """Give back what was taken and not spent, by key; less than nothing where more was spent than taken."""

    def account_budgets(amounts: Mapping[str, int]) -> Deferred[None]:
        """So much of what this process took in advance was spent, by key, and no line of the ledger will say so."""

    def budgets_spent(keys: Sequence[str]) -> Deferred[dict[str, int]]:
        """Fire with what is spent by key; what nothing was ever taken of is left out."""

    def forget_budgets(before: float) -> Deferred[int]:
        """Forget the budgets whose period ended before then; fire with how many that were."""


class ICounters(Interface):
    """Enforces limits: all claims of a request are granted together, or none is.

    Rates are windows that slide (L{limits.window} has the rule); a lease is held until the request is settled, or until
    the process that holds it has not renewed it for the lease time; a budget is charged with the whole claim, and
    corrected when the request is settled. Of a process that dies its claims on budgets stay charged until its ledger is
    recovered, so that no more can be spent than a budget holds.
    """

    unsettled = Attribute("How many reservations could not be settled, so that what they claimed stays (int).")

    def reserve_now(claims: Sequence[Claim]) -> Verdict | None:
        """Decide at once; C{None} where that takes waiting: then use C{reserve}."""

    def reserve(claims: Sequence[Claim]) -> Deferred[Verdict]:
        """Fire with the verdict. L{errors.LimitsUnavailable} where none can be had."""

    def settle(ticket: Any, amounts: Sequence[int], *, measured: bool = True) -> None:
        """The request is over, and took so much of each claim. Never waits, never raises; once for each ticket.

        @param measured: Whether its line in the ledger says the same; not where nobody knows what it used.
        """

    def untold(amounts: Mapping[str, int]) -> None:
        """Settled requests took so much of budgets, by key, and no line will say so. Never waits, never raises."""

    def corrected(amounts: Mapping[str, tuple[int, float]]) -> None:
        """As C{untold}: the store has corrected what requests of long ago took, to (how much more, C{ends})."""

    def used(claims: Sequence[Claim]) -> Deferred[list[int]]:
        """Fire with how much of each is used now, with what requests under way have reserved."""


class ICountersFactory(Interface):
    """A twistd plugin that makes counters: C{limits.backend} names it."""

    name = Attribute("The backend's name in the settings (str).")

    def counters(settings: Any, reactor: Any, budgets: IBudgetStore, now: Callable[[], float]) -> ICounters:
        """Make them from the whole settings; C{now} tells seconds since the epoch.

        The service tree starts them if they are an IService.
        """


class ISecretSource(Interface):
    """Keeps secrets outside of this proxy: a vault, a cloud's secret manager."""

    def read(name: str) -> Deferred[str]:
        """Fire with the secret of that name: of C{vault:team-a/openai}, C{team-a/openai}.

        Any failure says why there is none, in words fit to be logged; requests that need it get 503.
        """


class ISecretSourceFactory(Interface):
    """A twistd plugin that makes sources of secrets: C{secrets: {stores: [{type: <name>, …}]}}."""

    name = Attribute("The C{type} in the settings, and what references to it begin with (str).")

    def source(settings: Mapping[str, Any], reactor: Any) -> ISecretSource:
        """Make one from its entry in the settings, without C{type}; L{ValueError} says what is wrong with it.

        The service tree starts it if it is an IService.
        """


class IWatchable(Interface):
    """Notifies of changes to projects and tokens, for whoever caches what it read of them."""

    def watch(listener: Callable[[str], None]) -> None:
        """Call C{listener(project_id)} after every committed change to a project or to one of its tokens.

        For one that another process has made it is called as soon as this process hears of it. C{""} means that any
        project may have changed.
        """


class IAuditLogger(Interface):
    """Writes audit entries, which must not be lost."""

    def log(entry: AuditEntry) -> Deferred[None]:
        """Fire when the entry is on its medium."""


class IEventBus(Interface):
    """Delivers the records of finished requests to event sinks."""

    dropped = Attribute("How many events were dropped because the queue was full or a sink failed (int).")

    def publish(event: RequestRecord) -> None:
        """Queue it; never waits, never raises. Dropped and counted where the queue is full."""


class IEventSink(Interface):
    """Writes events to one destination outside of the proxy."""

    def write(events: Sequence[RequestRecord]) -> Deferred[None]:
        """Fire when all are delivered; a failure means that none need be, and the bus may try them again."""

    def close() -> Deferred[None]:
        """Fire when everything written is flushed and the destination is closed."""


class IEventSinkFactory(Interface):
    """A twistd plugin that makes event sinks: C{events: {sinks: [{type: <name>, …}]}}."""

    name = Attribute("The C{type} in the settings (str).")

    def sink(settings: Mapping[str, Any], reactor: Any) -> IEventSink:
        """Make one from its entry in the settings, without C{type}; L{ValueError} says what is wrong with it."""


class ICache(Interface):
    """Remembers byte strings for a while. Fails only in C{purge}: a cache that cannot be asked knows nothing.

    Keys are printable ASCII, C{<api>/<project>/…}, so that a prefix names an API, one of its projects, or everything.
    One that is an C{IService} is started and stopped with the daemon.
    """

    def get(key: str) -> Deferred[bytes | None]:
        """Fire with the value; with C{None} if it was never put, was removed, has expired or cannot be asked for."""

    def put(key: str, value: bytes, ttl: float) -> Deferred[bool]:
        """Keep it for C{ttl} seconds, which is more than 0, in place of what the key had.

        Fire with whether it was kept. One that is too large or cannot be stored is not, and the key then has no value
        as far as that is in the cache's power.
        """

    def remove(key: str) -> Deferred[bool]:
        """Forget it, if only later: until then C{get} has nothing; fire with whether there was something to forget."""

    def purge(prefix: str) -> Deferred[int]:
        """Forget every key that begins so (C{""}: all); fire with how many, or fail as C{errors.CacheUnavailable}."""

    def usage() -> Deferred[CacheUsage]:
        """Fire with what is held now."""


class ILocalCache(ICache):
    """A cache in this process, which holds any object and waits for nothing.

    Optional: such a cache is as fast as the one that is built in. Entries are then stored as they are and got without a
    Deferred; byte strings may be put beside them. No method here may wait or fail."""

    def get_now(key: str) -> Any:
        """What is stored under the key; C{None} where there is nothing, or nothing any more."""

    def put_now(key: str, value: Any, size: int, ttl: float) -> bool:
        """As C{put}, for any object, which holds so many bytes; whether it was stored."""

    def remove_now(key: str) -> bool:
        """As C{remove}."""

    def usage_now() -> CacheUsage:
        """As C{usage}; what has just expired may be counted still."""


class ICacheFactory(Interface):
    """A twistd plugin that makes caches: C{cache: {backend: <name>}}."""

    name = Attribute("The C{backend} in the settings (str).")

    def cache(settings: Any, reactor: Any) -> ICache:
        """Make one from the whole L{Settings<llmproxy.config.model.Settings>}; L{ValueError} says what is wrong."""
