"""What forwards requests, put together: for the daemon and for the library alike."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any
from weakref import WeakSet

from twisted.application.service import IService
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime

from llmproxy import plugins
from llmproxy.auth.authenticator import Authenticator
from llmproxy.auth.lockout import FailedAttempts
from llmproxy.base.peers import Peers
from llmproxy.base.ttl_cache import CacheLease
from llmproxy.caching import ResponseCache
from llmproxy.composition.provider_agents import ProviderAgents
from llmproxy.composition.provider_connections import ProviderConnections
from llmproxy.config.model import Settings
from llmproxy.config.routes import Routes
from llmproxy.interfaces import (
    IAuditLogger,
    ICacheFactory,
    ICounters,
    IProviderKeys,
    ITokenValidator,
)
from llmproxy.ledger import Ledger
from llmproxy.limits.counted import IRemoteCounters
from llmproxy.limits.in_flight import InFlightLimit
from llmproxy.limits.limiter import Limiter
from llmproxy.limits.reservation import BudgetObserver
from llmproxy.metering.catalog import Meters, Operations, own_prices, provider
from llmproxy.metering.cost_ceiling import CostCeiling
from llmproxy.metering.prices import Prices
from llmproxy.observability.metrics import Metrics
from llmproxy.observability.repeated_entries import RepeatedEntries
from llmproxy.proxy.accounting import Accounting
from llmproxy.proxy.attribution import AttributionFields
from llmproxy.proxy.deferred_results import DeferredResults
from llmproxy.proxy.fast_path.service import FastPath
from llmproxy.proxy.pipeline import Pipeline
from llmproxy.proxy.policy import Policy
from llmproxy.proxy.reporting import Observer
from llmproxy.proxy.request_scheduler import RequestScheduler
from llmproxy.upstream.key_states import KeyState
from llmproxy.upstream.probing import Probes
from llmproxy.upstream.provider_keys import ProviderKeys
from llmproxy.upstream.upstreams import Upstream, Upstreams, UpstreamState
from llmproxy.wire.buffers import Buffers
from llmproxy.wire.client.agent import Agent
from llmproxy.wire.client.transport import Transport
from llmproxy.wire.descriptors import Descriptors
from llmproxy.wire.write_coalescing import WriteCoalescer


@dataclass(frozen=True)
class Parts:
    """What forwards, and those of its parts that others watch or end.

    @ivar endpoints: The C{allowed_endpoints} of each API.
    @ivar retired: Agents of settings that are not in force any more, as long as something uses them.
    """

    pipeline: Pipeline
    scheduler: RequestScheduler
    fast_path: FastPath | None
    keys: ProviderKeys
    upstreams: Upstreams
    probes: Probes
    accounting: Accounting
    shares: InFlightLimit
    quota: Limiter
    agents: dict[str, tuple[Agent, ...]]
    ceiling: CostCeiling
    meters: Meters
    operations: Operations
    make_agents: ProviderAgents
    endpoints: dict[str, Collection[str]]
    refusals: RepeatedEntries
    clock: IReactorTime
    caching: ResponseCache | None = None
    retired: WeakSet[Agent] = field(default_factory=WeakSet)

    def prepare(self, before: Settings, after: Settings) -> Callable[[], None]:
        """Make what it takes to forward by other settings, which may fail; what it gives does so from then on.

        Requests under way go on by what they have begun with. Agents are kept, with their connections, where nothing of
        theirs is other; those that are not end their connections once these have been idle for long enough.
        """
        routes, prices = Routes(after), Prices(own_prices(after.prices))
        agents = {
            name: self.make_agents.of(name, api, self.agents[name] if name in before.apis else ())
            for name, api in after.apis.items()
        }
        return partial(self._reconfigure, after, agents, routes, prices)

    def _reconfigure(
        self, after: Settings, agents: dict[str, tuple[Agent, ...]], routes: Routes, prices: Prices
    ) -> None:
        kept = {id(agent) for several in agents.values() for agent in several}
        self.retired.update(agent for agent in _flat(self.agents) if id(agent) not in kept)
        self.agents.update(agents)
        self.upstreams.reconfigure(after.apis, _transports(agents))
        self.probes.reconfigure()
        self.shares.reconfigure(after)
        self.operations.reconfigure(after)
        self.ceiling.reconfigure(prices, {name: provider(api) for name, api in after.apis.items()})
        self.quota.reconfigure(after.limits, after.apis)
        self.meters.reconfigure(after)
        if self.caching is not None:
            self.caching.reconfigure(after)
        self.pipeline.reconfigure(routes)
        attribution = AttributionFields(after.attribution)
        self.accounting.reconfigure(attribution)
        if self.fast_path is not None:
            self.fast_path.reconfigure(_varying_fields(after, attribution))
        self.endpoints.clear()
        self.endpoints.update({name: api.allowed_endpoints for name, api in after.apis.items()})

    def listed(self) -> list[tuple[str, list[Upstream]]]:
        """The upstreams of each API."""
        return [(group.name, group.members) for group in self.upstreams.listed()]

    def keys_out(self, api: str, number: int) -> list[tuple[KeyState, float]]:
        """The keys that are passed over at an upstream, each with the seconds for which it will be."""
        now, upstream = self.clock.seconds(), self.upstreams.of(api).members[number]
        return [(each, each.out_until - now) for each in self.upstreams.keys.out(api, upstream.base_url, now)]

    def last_probe(self, api: str, number: int) -> str:
        """What the last probe of an upstream brought in this process; C{""} where there was none."""
        return self.probes.last_result(api, self.upstreams.of(api).members[number].base_url)

    def set_state(self, api: str, number: int, state: UpstreamState) -> None:
        """Take an upstream out of service, or back into it."""
        upstream = self.upstreams.of(api).members[number]
        upstream.state = state
        if state == "enabled":
            self.upstreams.keys.forgive(api, upstream.base_url)
        if self.fast_path is not None:
            self.fast_path.table.clear()

    def in_flight(self) -> Mapping[str, int]:
        """Requests under way, by API."""
        return self.shares.open

    @property
    def members(self) -> tuple[object, ...]:
        """Those of its parts that may be services, or have something to show, in the order in which they start."""
        cache = () if self.caching is None else (self.caching.state.storage.cache, self.caching)
        fast_path = () if self.fast_path is None else (self.fast_path,)
        connections = ProviderConnections(self.agents)
        serving = (self.scheduler, *fast_path, self.accounting)
        return (self.refusals, *cache, self.quota, self.shares, connections, self.upstreams, self.probes, *serving)

    @property
    def services(self) -> list[IService]:
        """Those of its parts that are to be started and stopped, in this order and back."""
        return [IService(part) for part in self.members if IService.providedBy(part)]

    def hang_up(self) -> Deferred[None]:
        """Let go of the connections to providers; fire when there are none. Cancelled, it aborts those in use."""
        if self.caching is not None:
            self.caching.cancel_background()
        self.upstreams.close()
        if self.fast_path is not None:
            self.fast_path.close()
        agents = [*_flat(self.agents), *self.retired]
        return gatherResults([agent.close() for agent in agents], consumeErrors=True).addCallback(lambda _: None)


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
    environ: Mapping[str, str] = MappingProxyType({}),
    coalescer: WriteCoalescer | None = None,
    descriptors: Descriptors | None = None,
    buffers: Buffers | None = None,
    ledger: Ledger | None = None,
    failed_attempts: FailedAttempts | None = None,
    metrics: Metrics,
    observers: Sequence[Observer],
    budgets: BudgetObserver | None = None,
    peers: Peers | None = None,
    lease: CacheLease | None = None,
) -> Parts:
    """Make what forwards, for the daemon and for the library alike.

    @param budgets: Told what happens to budgets.
    @param peers: Other workers, which are to know what is changed here of what they have stored.
    @param lease: On what is cached of C{projects}; renewed by whoever hears of their changes.
    @raise ValueError: where the settings name a cache that nobody provides; L{StartupError} where they name a file that
        cannot be used.
    """
    clock: IReactorTime = reactor
    if coalescer is not None and IRemoteCounters.providedBy(counters):
        coalescer.precede(IRemoteCounters(counters).tell_settled)  # whoever has a response may go on elsewhere
    routes = Routes(settings)
    make_agents = ProviderAgents(reactor, coalescer, descriptors, environ, learn)
    agents = {name: make_agents.of(name, api) for name, api in settings.apis.items()}
    upstreams = Upstreams(settings, _transports(agents), clock)
    shares = InFlightLimit(settings)
    ttl = settings.store.cache_seconds(announced=lease is not None)
    keys = ProviderKeys(projects, clock, ttl=ttl, lease=lease, learn=learn)
    caching = _caching(settings, reactor, now, buffers, peers)
    refusals = RepeatedEntries(audit, clock)
    providers, operations = {name: provider(api) for name, api in settings.apis.items()}, Operations(settings)
    worst = CostCeiling(Prices(own_prices(settings.prices)), providers, operations)
    quota = Limiter(counters, settings.limits, settings.apis, now, worst, budgets)
    meters = Meters(settings)
    attribution = AttributionFields(settings.attribution)
    accounting = Accounting(
        limiter=quota,
        in_flight=shares,
        meters=meters,
        operations=operations,
        metrics=metrics,
        observers=observers,
        clock=clock,
        ledger=ledger,
        results=None if ledger is None else DeferredResults(ledger, meters, counters, now, buffers),
        buffers=buffers,
        coalescer=None if coalescer is None else WriteCoalescer(reactor, most=64),
        attribution=attribution,
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
    scheduler = RequestScheduler(pipeline, accounting, clock)
    fast_path = None
    if settings.server.fast_path:
        varying = _varying_fields(settings, attribution)
        fast_path = FastPath(pipeline, scheduler, accounting, upstreams, agents, clock, varying)
    return Parts(
        pipeline=pipeline,
        scheduler=scheduler,
        fast_path=fast_path,
        keys=keys,
        upstreams=upstreams,
        probes=Probes(upstreams, keys, clock),
        accounting=accounting,
        shares=shares,
        quota=quota,
        agents=agents,
        ceiling=worst,
        meters=meters,
        operations=operations,
        make_agents=make_agents,
        endpoints={name: api.allowed_endpoints for name, api in settings.apis.items()},
        refusals=refusals,
        clock=clock,
        caching=caching,
    )


def _caching(
    settings: Settings, reactor: Any, now: Callable[[], float], buffers: Buffers | None, peers: Peers | None
) -> ResponseCache | None:
    """The cache that the settings name, made by its plugin; C{None} where nothing is cached."""
    if not settings.cache.enabled:
        return None
    cache = plugins.find(ICacheFactory, settings.cache.backend).cache(settings, reactor)
    return ResponseCache(cache, settings, reactor, now, buffers, peers)


def _varying_fields(settings: Settings, attribution: AttributionFields) -> frozenset[bytes]:
    """Names of request fields that differ by request, and change nothing with these settings but what is recorded."""
    forwards_cookies = any(api.forward_cookies for api in settings.apis.values())
    return attribution.field_names | (frozenset() if forwards_cookies else {b"cookie"})


def _flat(agents: Mapping[str, Sequence[Agent]]) -> list[Agent]:
    return [agent for several in agents.values() for agent in several]


def _transports(agents: Mapping[str, Sequence[Agent]]) -> dict[str, list[Transport]]:
    return {name: [Transport(agent) for agent in several] for name, several in agents.items()}
