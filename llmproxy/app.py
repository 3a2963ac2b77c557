"""The one place where objects are made: the daemon out of its settings, or the proxy alone as a Resource."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from time import time
from typing import Any, TextIO

from twisted.application.service import IService
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from llmproxy import plugins, sealing
from llmproxy.auth.authenticator import Authenticator
from llmproxy.auth.caching_validator import CachedTokenValidator
from llmproxy.auth.change_feed import ChangeFeed
from llmproxy.auth.lockout import FailedAttempts
from llmproxy.auth.unknown_tokens import UnknownTokens
from llmproxy.auth.unwritten_revocations import UnwrittenRevocations
from llmproxy.background import Task, tasks_of
from llmproxy.caching import Caching, Contents
from llmproxy.caching.backends.redis import RedisCache
from llmproxy.config.environ import secret
from llmproxy.config.library import ProxyConfig
from llmproxy.config.load import read_private
from llmproxy.config.model import Api, Settings
from llmproxy.config.redis import parse
from llmproxy.config.routes import Routes
from llmproxy.coroutines import FairLock
from llmproxy.daemon import Daemon
from llmproxy.errors import StoreUnavailable
from llmproxy.http.forwarded import Network, is_within, networks
from llmproxy.interfaces import (
    IAuditLogger,
    ICacheFactory,
    ICounters,
    ICountersFactory,
    IEventBus,
    IEventSinkFactory,
    IProviderKeys,
    ITokenValidator,
)
from llmproxy.ledger import Ledger
from llmproxy.ledger.journal import Room
from llmproxy.ledger.records import Reservation
from llmproxy.ledger.reports import Reports
from llmproxy.ledger.sql import Books
from llmproxy.limits.charges import charges
from llmproxy.limits.counters.budget_store import MemoryBudgetStore
from llmproxy.limits.counters.memory import MemoryCounters
from llmproxy.limits.counters.redis import RedisCounters
from llmproxy.limits.in_flight import Shares
from llmproxy.limits.limiter import Quota
from llmproxy.metering.catalog import Meters, Operations, own_prices, provider
from llmproxy.metering.prices import Prices
from llmproxy.metering.worst import Worst
from llmproxy.model import RequestRecord
from llmproxy.observability import audit as audits
from llmproxy.observability import log_output as logs
from llmproxy.observability.access_log import AccessLog
from llmproxy.observability.event_bus import MemoryBus
from llmproxy.observability.exposition import render
from llmproxy.observability.metrics import Metrics, ProxyMetrics
from llmproxy.observability.reactor_lag import ReactorLag
from llmproxy.observability.repeated_entries import RepeatedEntries
from llmproxy.own_threads import OwnThreads
from llmproxy.proxy.accounting import Accounting, Observer
from llmproxy.proxy.deferred_results import DeferredResults
from llmproxy.proxy.pipeline import Pipeline
from llmproxy.proxy.policy import Policy
from llmproxy.redis import Redis, connect
from llmproxy.store.address import exact
from llmproxy.store.canary import refuse_new_key
from llmproxy.store.secrets import Secret, load_or_make
from llmproxy.store.store import Store
from llmproxy.upstream.upstreams import ProviderKeys, Upstreams
from llmproxy.web import ops
from llmproxy.web.manage import Management
from llmproxy.web.manage.endpoint import CHANGE_SECONDS
from llmproxy.web.proxy import ProxyResource
from llmproxy.web.root import Root
from llmproxy.wire.buffers import Buffers, derived_limit
from llmproxy.wire.client.agent import Agent
from llmproxy.wire.client.tls import Trust
from llmproxy.wire.client.transport import Caller
from llmproxy.wire.descriptors import Descriptors
from llmproxy.wire.parser import Limits
from llmproxy.wire.server.site import Site
from llmproxy.wire.write_coalescing import Turn

_log = Logger()


@dataclass(frozen=True)
class Parts:
    """What forwards, and those of its parts that others watch or end."""

    routes: Routes
    pipeline: Pipeline
    keys: ProviderKeys
    upstreams: Upstreams
    shares: Shares
    quota: Quota
    agents: tuple[Agent, ...]
    refusals: RepeatedEntries
    caching: Caching | None = None

    @property
    def services(self) -> list[IService]:
        """Those of its parts that are to be started and stopped, in this order and back."""
        parts = () if self.caching is None else (self.caching.shelf.cache, self.caching)
        return [IService(part) for part in (self.refusals, *parts) if IService.providedBy(part)]

    def hang_up(self) -> Deferred[None]:
        """Let go of the connections to providers; fire when there are none."""
        if self.caching is not None:
            self.caching.rest()
        self.upstreams.close()
        return gatherResults([agent.close() for agent in self.agents]).addCallback(lambda _: None)


def forwarding(
    settings: Settings,
    reactor: Any,
    *,
    validator: ITokenValidator,
    projects: IProviderKeys,
    audit: IAuditLogger,
    now: Callable[[], float],
    counters: ICounters,
    learn: Callable[[str], object] = lambda key: None,
    turn: Turn | None = None,
    descriptors: Descriptors | None = None,
    buffers: Buffers | None = None,
    ledger: Ledger | None = None,
    failed_attempts: FailedAttempts | None = None,
    metrics: Metrics,
    observers: Sequence[Observer],
) -> Parts:
    """Make what forwards, for the daemon and for the library alike.

    @raise ValueError: where the settings name a cache that nobody provides.
    """
    clock: IReactorTime = reactor
    routes = Routes(settings)
    agents = {name: _agent(api, reactor, turn, descriptors) for name, api in settings.apis.items()}
    upstreams = Upstreams(settings, {name: Caller(agent) for name, agent in agents.items()}, clock)
    shares = Shares(settings)
    keys = ProviderKeys(projects, clock, ttl=settings.store.token_cache_ttl, learn=learn)
    caching = _caching(settings, reactor, now, buffers)
    refusals = RepeatedEntries(audit, clock)
    providers, operations = {name: provider(api) for name, api in settings.apis.items()}, Operations(settings)
    worst = Worst(Prices(own_prices(settings.prices)), providers, operations)
    quota = Quota(counters, settings.limits, settings.apis, now, worst)
    meters = Meters(settings)
    accounting = Accounting(
        limiter=quota,
        in_flight=shares,
        meters=meters,
        operations=operations,
        metrics=metrics,
        observers=observers,
        clock=clock,
        ledger=ledger,
        results=None if ledger is None else DeferredResults(ledger, meters, counters, now),
        buffers=buffers,
        turn=None if turn is None else Turn(reactor, most=64),
    )
    pipeline = Pipeline(
        routes=routes,
        authenticator=Authenticator(validator, failed_attempts or FailedAttempts(), clock),
        policy=Policy(projects, refusals, now, enforce=settings.server.enforce_project_active),
        cache=caching,
        accounting=accounting,
        provider_keys=keys,
        upstreams=upstreams,
        server=settings.server,
        clock=clock,
    )
    return Parts(routes, pipeline, keys, upstreams, shares, quota, tuple(agents.values()), refusals, caching)


def build(
    settings: Settings,
    reactor: Any,
    environ: Mapping[str, str],
    *,
    now: Callable[[], float],
    random: Callable[[int], bytes] = os.urandom,
    stream: TextIO = sys.stdout,
) -> Daemon:
    """Make the daemon. Nothing listens until it is started, and no database is touched, except that one is asked
    whether it has been used where there is no encryption key yet.

    @raise ValueError: where the settings name a plugin that nobody provides, or one that refuses its own settings.
    @raise llmproxy.store.refusals.CannotStart: where a secret's file is readable by others, or the store's URL is none.
    """
    # A database that needs a key which is lost is not to be given a new one.
    encryption = load_or_make(
        settings.state_dir,
        secret(environ, "ENCRYPTION_KEY", read_private),
        "encryption-key",
        random,
        partial(refuse_new_key, url=settings.store.url),
    )
    management = load_or_make(
        settings.state_dir, secret(environ, "MANAGEMENT_TOKEN", read_private), "management-token", random
    )
    servers = [url for url in (settings.redis.url, settings.cache.redis_url, settings.limits.redis_url) if url]
    passwords = [*(parse(url).password for url in servers), exact(settings.store.url).password or ""]
    redactor = logs.Redactor([encryption.value, management.value, *passwords])
    output = logs.observer(settings.logging, stream, redactor)
    run = random(8).hex() if settings.ledger.enabled else ""
    store = Store(
        settings.store.url,
        reactor,
        run=run,
        sealer=sealing.Sealer(sealing.derive(encryption.value, "provider keys")),
        hasher=sealing.TokenHasher(sealing.derive(encryption.value, "tokens")),
        now=now,
        random=random,
    )
    failed_attempts = FailedAttempts()
    unknown = UnknownTokens(store.validate_tokens, failed_attempts, reactor)
    tokens = CachedTokenValidator(
        store,
        unknown=unknown,
        clock=reactor,
        now=now,
        ttl=settings.store.token_cache_ttl,
        size=settings.store.token_cache_size,
        uses=None if settings.ledger.enabled else store,
        journaled=settings.ledger.enabled,
    )
    audit = _audit(settings, reactor, redactor)
    sinks = _sinks(settings, reactor)
    bus = MemoryBus(sinks, reactor, queue_size=settings.events.queue_size, scrub=redactor.record)
    access = AccessLog(output.write, reactor)
    counters = plugins.find(ICountersFactory, settings.limits.backend).counters(settings, reactor, store, now)
    turn, descriptors = Turn(reactor), Descriptors(reactor)
    buffers = Buffers(settings.server.max_buffered_bytes or derived_limit())
    buffers.keep_spare()
    books = Books(store, now, charges)
    ledger = _ledger(settings, reactor, books, now, run, redactor)
    metrics = Metrics(
        breakers=lambda: _circuits(parts.upstreams), events_dropped=lambda: bus.dropped, redact=redactor.redact
    )
    observers: list[Observer] = [bus.publish, *([access.observe] if settings.logging.access else [])]
    parts = forwarding(
        settings,
        reactor,
        validator=tokens,
        projects=store,
        audit=audit,
        now=now,
        counters=counters,
        learn=redactor.add,
        turn=turn,
        descriptors=descriptors,
        buffers=buffers,
        ledger=ledger,
        failed_attempts=failed_attempts,
        metrics=metrics,
        observers=observers,
    )
    proxy = ProxyResource(
        parts.pipeline,
        clock=reactor,
        now=now,
        fresh_id=request_ids(random),
        trusted_proxies=settings.server.trusted_proxies,
    )
    for listener in (tokens.forget_project, parts.keys.forget):
        store.watch(listener)
    change_feed = _change_feed(settings, reactor, store)
    changes = FairLock()
    unwritten = UnwrittenRevocations(
        tokens,
        {
            "token": store.deactivate_token,
            "tokens of project": store.revoke_project_tokens,
            "project": store.deactivate_project,
        },
        reactor,
        lambda: changes.within(CHANGE_SECONDS, reactor, StoreUnavailable()),
    )
    metrics.gauge(
        "revocations_unwritten", "Revocations that are in force in this process only.", lambda: len(unwritten)
    )
    metrics.counter(
        "store_silences", "Times the store did not say in time what has changed.", lambda: change_feed.failures
    )
    metrics.gauge(
        "unknown_tokens_waiting", "Tokens never seen here that wait to be looked up.", lambda: unknown.waiting
    )
    metrics.counter("unknown_tokens_refused", "Of these, those that were turned away.", lambda: unknown.refused)
    cache = None if parts.caching is None else parts.caching.shelf.cache
    uses = {
        "cache": cache.redis if isinstance(cache, RedisCache) else None,
        "limits": counters.redis if isinstance(counters, RedisCounters) else None,
        "revocation": change_feed.redis,
    }
    _watch(metrics, uses)
    daemon = Daemon(settings, reactor, observer=output, store=store, hang_up=parts.hang_up, descriptors=descriptors)
    lag = ReactorLag(reactor, metrics.reactor_lag.observe)
    metrics.gauge("reactor_lag_longest_seconds", "The latest that the reactor ever was.", lambda: lag.longest)
    metrics.gauge("buffered_bytes", "Bytes of requests and answers that are held in memory.", lambda: buffers.held)
    metrics.counter("buffers_full", "Requests and bodies that found no room there.", lambda: buffers.refused)
    daemon.watch("revocations", lambda: unwritten.state)
    metrics.counter("descriptor_shortages", "Times that descriptors ran short.", lambda: descriptors.shortages)
    daemon.before_cut(parts.pipeline.shut_down)
    metrics.counter("limits_unsettled", "Reservations that could not be settled.", lambda: counters.unsettled)
    metrics.gauge("client_connections", "Client connections that are open.", lambda: daemon.connections)
    metrics.gauge("requests_at_providers", "Requests under way to a provider.", lambda: parts.shares.open, label="api")
    manage = Management(
        projects=store,
        tokens=store,
        denials=parts.refusals,
        revocations=unwritten,
        changes=changes,
        usage=Reports(books, ledger, reactor),
        audit=audit,
        apis={name: api.allowed_endpoints for name, api in settings.apis.items()},
        default_api=settings.default_api,
        standings=parts.quota.standings,
        management_token=management.value,
        trusted_proxies=settings.server.trusted_proxies,
        clock=reactor,
        now=now,
        cache=_watched(parts.caching, metrics, settings),
        counts=metrics.snapshot,
    )
    pages = partial(ops.pages, partial(render, metrics), daemon.readiness, daemon.mentioned)
    on_refused = partial(_malformed, [metrics.observe, *observers], now)
    site = partial(_site, settings, reactor, turn, descriptors, buffers, on_refused)
    own_admin, own_metrics = settings.server.admin_listen, settings.server.metrics_listen
    seen = pages() if settings.server.public_metrics else pages(manage.auth.admit)
    public = Root(proxy=proxy, manage=None if own_admin else manage, ops=None if own_metrics else seen)
    daemon.serve(settings.server.listen, site(public))
    if own_admin:
        daemon.serve(own_admin, site(Root(manage=manage)))
    if own_metrics:
        daemon.serve(own_metrics, site(Root(ops=pages())))
    if isinstance(counters, RedisCounters):
        daemon.first(counters.open)
    if ledger is not None:
        daemon.first(ledger.open)
        daemon.watch("ledger", lambda: ledger.state)
        metrics.counter("ledger_lines", "Lines that were written to the store.", lambda: ledger.entered)
        metrics.counter("ledger_recovered", "Of these, lines that dead processes had left.", lambda: ledger.recovered)
        metrics.counter("ledger_lost", "Records that the ledger's journal had no room for.", lambda: ledger.lost)
        metrics.counter("ledger_damaged", "Places of journals that could not be read.", lambda: ledger.damaged)
        daemon.mention("ledger_files", lambda: ledger.files)
        metrics.gauge("ledger_open", "Requests that were let go and are not settled.", lambda: ledger.under_way)
        metrics.gauge(
            "ledger_pending_results",
            "Results that were announced and not fetched yet.",
            lambda: ledger.pending_results,
        )
        metrics.gauge("ledger_journal_bytes", "The journal's size on the disk.", lambda: ledger.journal_size)
    services = (lag, ledger, audit, bus, access, tokens, counters, change_feed, unwritten, *parts.services)
    for service in services:
        if IService.providedBy(service):
            daemon.accompany(service)
    _oversee(daemon, metrics, tasks_of(services))
    daemon.mention("events", lambda: bus.state)
    daemon.mention("log", lambda: output.state)
    if isinstance(audit, audits.FileAudit):
        daemon.mention("audit", lambda: audit.state)
    files = {name: each for name, each in {"audit": audit, **sinks}.items() if hasattr(each, "half_lines")}
    metrics.counter(
        "half_lines",
        "Lines in files that a failure or a crash has left unfinished, and after which a new one was begun.",
        lambda: {name: each.half_lines for name, each in files.items()},
        "file",
    )
    metrics.counter("log_lines_lost", "Lines of the log that could not be written.", lambda: output.lost)
    for made in (encryption, management):
        _tell(made)
    return daemon


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
            observers.append(events.publish)
        if logger is not None:
            observers.append(partial(_say, logger))
        tell_time = now or time  # a reactor's own clock may be one that knows no date
        settings = config.settings() if isinstance(config, ProxyConfig) else config
        self._metrics = Metrics(breakers=lambda: _circuits(parts.upstreams))
        parts = forwarding(
            settings,
            reactor,
            validator=validator,
            projects=store,
            audit=audit or audits.NullAudit(),
            now=tell_time,
            counters=MemoryCounters(MemoryBudgetStore(tell_time), reactor, tell_time),
            metrics=self._metrics,
            observers=observers,
        )
        self._parts = parts
        super().__init__(
            parts.pipeline,
            clock=reactor,
            now=tell_time,
            fresh_id=request_ids(os.urandom),
            trusted_proxies=settings.server.trusted_proxies,
        )

    def metrics(self) -> ProxyMetrics:
        """What has been counted so far."""
        return self._metrics.snapshot()

    async def close(self) -> None:
        """Let go of the connections to the provider, and of the cache."""
        await self._parts.hang_up()
        for service in reversed(self._parts.services):
            await maybeDeferred(service.stopService)


def request_ids(random: Callable[[int], bytes]) -> Callable[[], str]:
    """Makes request ids: unguessable per process, and cheap."""
    start, numbers = random(9).hex(), count(1)
    return lambda: f"{start}-{next(numbers):x}"


def _caching(settings: Settings, reactor: Any, now: Callable[[], float], buffers: Buffers | None) -> Caching | None:
    """The cache that the settings name, made by its plugin; C{None} where nothing is cached."""
    if not settings.cache.enabled:
        return None
    cache = plugins.find(ICacheFactory, settings.cache.backend).cache(settings, reactor)
    return Caching(cache, settings, reactor, now, buffers)


def _watched(caching: Caching | None, metrics: Metrics, settings: Settings) -> Contents | None:
    """The cache for those who manage it, and its figures among the metrics."""
    if caching is None:
        return None
    metrics.gauge("cache_flights", "Calls to providers that requests could join.", lambda: len(caching.flights))
    metrics.gauge("cache_pending_bytes", "Bytes of answers that may yet be kept.", lambda: caching.buffered)
    nearby = caching.shelf.nearby
    if nearby is not None:
        metrics.gauge("cache_entries", "Answers that are kept in memory.", lambda: nearby.held().entries)
        metrics.gauge("cache_bytes", "Bytes that they take.", lambda: nearby.held().size)
        metrics.counter("cache_evictions", "Answers that had to go for want of room.", lambda: nearby.held().evicted)
    return Contents(caching, settings.cache.backend, 0 if nearby is None else settings.cache.max_bytes)


def _agent(api: Api, reactor: Any, turn: Turn | None, descriptors: Descriptors | None) -> Agent:
    connection, timeouts = api.connection, api.timeouts
    return Agent(
        reactor,
        connect_timeout=timeouts.connect,
        idle_timeout=timeouts.idle_connection,
        max_conns_per_host=connection.max_conns_per_host,
        max_idle_per_host=connection.max_idle_conns_per_host,
        max_idle=connection.max_idle_conns,
        context_factory=Trust(api.ca_file),
        turn=turn,
        descriptors=descriptors,
    )


def _tell(made: Secret) -> None:
    if made.made:
        _log.info("Made {path}; keep it safe.", path=str(made.path))


def _malformed(
    observers: Sequence[Observer], now: Callable[[], float], status: int, code: str, remote: str, request_id: str
) -> None:
    """What the wire refuses is not a request that a resource could tell of; it is counted and logged all the same."""
    record = RequestRecord(
        request_id=request_id,
        started_at=now(),
        duration=0.0,
        method="",
        path="",
        status=status,
        outcome="refused",
        error=code,
        client=remote,
    )
    for observe in observers:
        observe(record)


def _site(
    settings: Settings,
    reactor: Any,
    turn: Turn,
    descriptors: Descriptors,
    buffers: Buffers,
    on_refused: Callable[[int, str, str, str], None],
    root: Root,
) -> Site:
    server = settings.server
    return Site(
        root,
        reactor=reactor,
        limits=Limits(head=server.max_head_bytes, body=server.max_request_bytes),
        head_timeout=server.head_timeout,
        body_timeout=server.body_timeout,
        keepalive_timeout=server.keepalive_timeout,
        send_timeout=server.send_timeout,
        min_send_rate=server.min_send_rate,
        max_connections=server.max_connections,
        max_connections_per_address=server.max_connections_per_address,
        of_many=partial(_of_many, networks(tuple(server.trusted_proxies))),
        on_refused=on_refused,
        turn=turn,
        descriptors=descriptors,
        buffers=buffers,
    )


def _of_many(trusted: tuple[Network, ...], remote: str) -> bool:
    """Whether a peer brings the connections of many clients, so that they are not to be counted as one's."""
    return remote in ("", "unix") or is_within(remote, trusted)


def _sinks(settings: Settings, reactor: Any) -> dict[str, Any]:
    """The sinks by a name of their own, each made by the plugin that the settings name."""
    made: dict[str, Any] = {}
    for number, entry in enumerate(settings.events.sinks):
        factory = plugins.find(IEventSinkFactory, entry.type)
        made[f"{entry.type}-{number}"] = factory.sink(entry.options, reactor)
    return made


def _ledger(
    settings: Settings,
    reactor: Any,
    books: Books,
    now: Callable[[], float],
    run: str,
    redactor: logs.Redactor,
) -> Ledger | None:
    told = settings.ledger
    if not told.enabled:
        return None
    return Ledger(
        books,
        told.directory or Path(settings.state_dir) / "ledger",
        reactor,
        now,
        OwnThreads(reactor, "ledger", size=2).call,
        run=run,
        room=Room(told.segment_bytes, told.max_bytes),
        interval=told.interval,
        keep_lines=told.keep_lines,
        keep_days=told.keep_days,
        price=_input_price(settings),
        scrub=redactor.record,
        redact=redactor.redact,
    )


def _input_price(settings: Settings) -> Callable[[Reservation], float | None]:
    """Prices the input of requests whose process ended first; with prices of its own, as it is used in a thread."""
    prices, providers = (
        Prices(own_prices(settings.prices)),
        {name: provider(api) for name, api in settings.apis.items()},
    )

    def priced(left: Reservation) -> float | None:
        known, units = providers.get(left.api, ""), {"input_tokens": left.given}
        return prices.cost(left.api, known, "", left.model, units, left.at)

    return priced


def _audit(settings: Settings, reactor: Any, redactor: logs.Redactor) -> IAuditLogger:
    if not settings.audit.file:
        return audits.NullAudit()
    threads = OwnThreads(reactor, "audit")
    return audits.FileAudit(settings.audit.file, reactor, threads.call, redact=redactor.redact)


def _oversee(daemon: Daemon, metrics: Metrics, tasks: Sequence[Task]) -> None:
    """Count what fails in the background, and say which of it fails now."""
    names = sorted({task.name for task in tasks})

    def failures() -> Mapping[str, float]:
        return {name: sum(task.failures for task in tasks if task.name == name) for name in names}

    def state() -> str:
        wrong = sorted({f"{task.name} {task.state}" for task in tasks if task.state != "ok"})
        return ", ".join(wrong) or "ok"

    metrics.counter("background_failures", "Errors that work in the background did not foresee.", failures, "task")
    daemon.mention("background", state)


def _change_feed(settings: Settings, reactor: Any, store: Store) -> ChangeFeed:
    """Through Redis too where it is used anyhow."""
    limits, cache = settings.limits.backend == "redis", settings.cache.enabled and settings.cache.backend == "redis"
    url = settings.limits.redis_url if limits else settings.cache.redis_url
    redis = connect(settings.redis, reactor, url=url, connections=1, use="revocation") if limits or cache else None
    return ChangeFeed(store, reactor, redis=redis, channel=f"{settings.redis.key_prefix}changes")


def _watch(metrics: Metrics, used: Mapping[str, Redis | None]) -> None:
    """Show how Redis does for each use that is made of it."""
    uses = {use: redis for use, redis in used.items() if redis is not None}
    if not uses:
        return

    def each(read: Callable[[Redis], float]) -> Callable[[], Mapping[str, float]]:
        return lambda: {use: read(redis) for use, redis in uses.items()}

    metrics.gauge("redis_available", "1 while commands are sent to Redis.", each(lambda r: float(r.available)), "use")
    metrics.counter("redis_errors", "Commands and connections that failed.", each(lambda r: r.errors), "use")
    metrics.counter("redis_timeouts", "Commands whose reply was late.", each(lambda r: r.timeouts), "use")
    metrics.counter("redis_refused", "Commands not sent: too many waited.", each(lambda r: r.refused), "use")


def _circuits(upstreams: Upstreams) -> Mapping[str, str]:
    return {name: circuits.state for name, circuits in upstreams.circuits.items()}


def _say(logger: Logger, record: RequestRecord) -> None:
    logger.info(
        "{record.method} {record.path} {record.status} {record.outcome} in {record.duration:.3f} s",
        record=record,
    )
