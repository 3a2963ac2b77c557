"""The daemon, put together out of its settings."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any, SupportsBytes, TextIO

from twisted.logger import Logger

from llmproxy.auth.lockout import FailedAttempts
from llmproxy.base.late_imports import LateImports
from llmproxy.base.peers import Peers
from llmproxy.caching import CacheAdmin
from llmproxy.composition.alerts import Alerting, alerting
from llmproxy.composition.counters import make_counters
from llmproxy.composition.forwarding import Parts, forwarding
from llmproxy.composition.identity import Identities, identities, issuers
from llmproxy.composition.late_pages import late_pages
from llmproxy.composition.listeners import listen, make_site
from llmproxy.composition.own_secrets import encryption_key_file, keyring, own_secrets, passwords
from llmproxy.composition.recording import Records, make_records
from llmproxy.composition.reloading import Reloader, WorkersReloader
from llmproxy.composition.secret_stores import secret_references
from llmproxy.composition.tokens import Tokens, make_tokens
from llmproxy.composition.upstream_health import share_health
from llmproxy.composition.workers import WorkerViews
from llmproxy.config.model import Settings
from llmproxy.config.settings_file import SettingsFile
from llmproxy.interfaces import ICounters
from llmproxy.keyring import AUDIT_LOG, CREATIONS, MANAGEMENT_KEYS, PROVIDER_KEYS, SIGN_INS, TOKENS, parse_keys
from llmproxy.observability import log_output as logs
from llmproxy.observability.clock_steps import ClockSteps
from llmproxy.observability.log_output import LogOutput
from llmproxy.observability.metrics import Metrics
from llmproxy.observability.reactor_lag import ReactorLag
from llmproxy.observability.redaction import Redactor
from llmproxy.process.daemon import Daemon
from llmproxy.process.start_checks import require_startable
from llmproxy.process.start_failures import check_peers_files
from llmproxy.process.worker import Worker
from llmproxy.proxy.reporting import going_on
from llmproxy.sealing import TokenHasher
from llmproxy.store.creations import CreationTable
from llmproxy.store.data_keys import unlock
from llmproxy.store.groups import GroupTable
from llmproxy.store.management_keys import ManagementKeyTable
from llmproxy.store.revoked_subjects import RevokedSubjectTable
from llmproxy.store.store import Store
from llmproxy.upstream.secret_references import SecretReferences
from llmproxy.web.late import LateResource
from llmproxy.web.manage.auth import ManagementAuth
from llmproxy.web.proxy import ProxyResource, request_ids
from llmproxy.web.root import Root
from llmproxy.wire.buffers import Buffers, derived_limit
from llmproxy.wire.descriptors import Descriptors
from llmproxy.wire.server.site import Site
from llmproxy.wire.write_coalescing import WriteCoalescer

if TYPE_CHECKING:
    from llmproxy.web.admin.tree import AdminPages
    from llmproxy.web.manage.tree import Management

_log = Logger()


@dataclass(frozen=True)
class Base:
    """What the rest of the daemon is made with.

    @ivar management: The management token.
    @ivar audit_key: Keys the chain of audit entries.
    @ivar keys: The management keys; C{creations}: what was answered to creations.
    @ivar run: A name for this process that no other ever has; C{""} without a ledger.
    """

    settings: Settings
    reactor: Any
    now: Callable[[], float]
    random: Callable[[int], bytes]
    management: str
    redactor: Redactor
    output: LogOutput
    run: str
    audit_key: SupportsBytes
    secrets: SecretReferences
    store: Store
    keys: ManagementKeyTable
    creations: CreationTable
    coalescer: WriteCoalescer
    descriptors: Descriptors
    buffers: Buffers
    peers: Peers
    identity: Identities

    @property
    def parts(self) -> tuple[object, ...]:
        """Of it what is started, stopped and shown with the daemon."""
        return (self.descriptors, self.buffers, self.output, self.secrets, *self.identity.parts)


def build(
    settings: Settings,
    reactor: Any,
    environ: Mapping[str, str],
    *,
    now: Callable[[], float],
    random: Callable[[int], bytes] = os.urandom,
    stream: TextIO = sys.stdout,
    source: SettingsFile | None = None,
    worker: Worker | None = None,
    further: Sequence[object] = (),
) -> Daemon:
    """Make the daemon. Nothing listens before its start; a database is at most asked whether it has a key already.

    @param source: Where the settings are from, to be read again when the daemon is told to reload them.
    @param further: More parts of the process, to be started, stopped and shown with it.
    @raise ValueError: where the settings name a plugin that nobody provides, or one that refuses its own settings.
    @raise llmproxy.store.errors.StartupError: where a secret's file is readable by others, or the store's URL is none.
    """
    base = _base(settings, reactor, environ, now, random, stream, worker)
    tokens = make_tokens(settings, reactor, base.store, now, random)
    records, counters = _records(base), make_counters(settings, reactor, base.store, now, worker)
    alerts = _alerts(base, environ, records, counters)
    metrics = Metrics(lambda: parts.upstreams.states(), lambda: records.bus.dropped, base.redactor.redact)
    parts = _forwarding(base, environ, tokens, records, counters, metrics, alerts)
    daemon = Daemon(settings, reactor, base.output, base.store, parts.hang_up, base.descriptors)
    _connect(base, daemon, parts, worker)
    share_health(parts.probes, base.peers, records.bus, base.now, lambda: daemon.is_running)
    views = WorkerViews(metrics, base.peers, daemon.checks, LateImports(base.reactor))
    daemon.hand_over = views.hand_over
    reloader = _reloader(base, parts, alerts, daemon, source)
    known = (settings.server.trusted_proxies, base.keys, base.identity.bearers)
    auth = ManagementAuth(base.management, FailedAttempts(), reactor, *known)
    lag = ReactorLag(reactor, metrics.reactor_lag.observe)
    steps = ClockSteps(reactor, now, lambda: base.peers.leads)
    making = partial(_management, base, auth, tokens, parts, views, records, reloader, alerts)
    manage, admin = _management_trees(base, auth, making, records, parts)
    written = (*records.parts, *alerts.parts)
    own = (*base.parts, lag, steps, *written, counters, *tokens.parts, *parts.members, reloader.own, views)
    _add(daemon, metrics, *own, *further)
    listen(daemon, _proxy(base, parts), auth, manage, admin, views, _sites(base, metrics, records))
    return daemon


def _forwarding(
    base: Base,
    environ: Mapping[str, str],
    tokens: Tokens,
    records: Records,
    counters: ICounters,
    metrics: Metrics,
    alerts: Alerting,
) -> Parts:
    return forwarding(
        base.settings,
        base.reactor,
        validator=tokens.validator,
        projects=base.store,
        audit=records.audit,
        now=base.now,
        counters=counters,
        learn=base.redactor.add,
        environ=environ,
        coalescer=base.coalescer,
        descriptors=base.descriptors,
        buffers=base.buffers,
        ledger=records.ledger,
        failed_attempts=tokens.failed_attempts,
        metrics=metrics,
        observers=records.observers,
        budgets=alerts.budgets,
        peers=base.peers,
        lease=tokens.lease,
    )


def _add(daemon: Daemon, metrics: Metrics, *parts: object) -> None:
    """Have all of them take part in the process's life, and their figures and the daemon's shown."""
    for part in parts:
        daemon.add(part)
        metrics.register(part)
    metrics.register(daemon)


def _records(base: Base) -> Records:
    made = (base.settings, base.reactor, base.now, base.run, base.store, base.output, base.redactor)
    return make_records(*made, base.audit_key, base.peers)


def _alerts(base: Base, environ: Mapping[str, str], records: Records, counters: ICounters) -> Alerting:
    return alerting(
        base.settings,
        base.reactor,
        environ,
        store=base.store,
        counters=counters,
        audit=records.audit,
        bus=records.bus,
        now=base.now,
        new_id=lambda: base.random(16).hex(),
        redactor=base.redactor,
        redelivers=lambda: base.peers.number in (0, 1),
    )


def _connect(base: Base, daemon: Daemon, parts: Parts, worker: Worker | None) -> None:
    """Have those told who see to changes of keys, to the end of the process and to its sockets."""
    base.store.watch(parts.keys.forget)
    base.store.watch(lambda _: base.secrets.recheck())
    base.secrets.attach(base.store.secret_references, partial(parts.keys.forget, ""))
    base.store.on_commit(partial(base.peers.tell, "changed"))  # other workers need not wait until they ask the store
    base.peers.register("changed", base.store.announce)
    daemon.before_abort(parts.pipeline.shut_down)
    daemon.all_reported = parts.accounting.all_reported
    if worker is not None:
        worker.control(daemon, base.reactor.stop)


def _base(
    settings: Settings,
    reactor: Any,
    environ: Mapping[str, str],
    now: Callable[[], float],
    random: Callable[[int], bytes],
    stream: TextIO,
    worker: Worker | None,
) -> Base:
    encryption, management = own_secrets(settings, environ, random)
    redactor = Redactor([*parse_keys(encryption.value), management.value, *passwords(settings)])
    ring = keyring(encryption, encryption_key_file(settings, environ), redactor.add)
    output = logs.observer(settings.logging, stream, redactor)
    run = random(8).hex() if settings.ledger.enabled else ""
    references = secret_references(
        settings, environ, reactor, is_own=lambda text: text in (*ring.keys, management.value), learn=redactor.add
    )
    store = Store(
        settings.store.url,
        reactor,
        run=run,
        sealer=ring.sealer(PROVIDER_KEYS),
        hasher=TokenHasher(ring.data_keys[TOKENS]),
        now=now,
        random=random,
        unlock=partial(unlock, keyring=ring),
        resolve=references.resolve,
    )
    key_hasher = TokenHasher(ring.data_keys[MANAGEMENT_KEYS])
    keys = ManagementKeyTable(store, key_hasher, now, random)
    creations = CreationTable(store, ring.sealer(CREATIONS), now)
    coalescer, descriptors = WriteCoalescer(reactor), Descriptors(reactor)
    buffers = Buffers(settings.server.max_buffered_bytes or derived_limit())
    buffers.keep_spare()
    sealer, check = ring.sealer(SIGN_INS, random), RevokedSubjectTable(store, now).check
    return Base(
        settings=settings,
        reactor=reactor,
        now=now,
        random=random,
        management=management.value,
        redactor=redactor,
        output=output,
        run=run,
        audit_key=ring.data_keys[AUDIT_LOG],
        secrets=references,
        store=store,
        keys=keys,
        creations=creations,
        coalescer=coalescer,
        descriptors=descriptors,
        buffers=buffers,
        peers=Peers() if worker is None else worker.peers,
        identity=identities(settings, environ, sealer, reactor, now, random, redactor.add, check),
    )


def _reloader(
    base: Base, parts: Parts, alerts: Alerting, daemon: Daemon, source: SettingsFile | None
) -> WorkersReloader:
    def prepare(before: Settings, after: Settings) -> Callable[[], None]:
        check_peers_files(after)
        renew, reconfigure = daemon.read_certificates(), parts.prepare(before, after)
        alert = alerts.prepare(before, after)

        def follow() -> None:
            reconfigure()
            renew()
            alert()
            base.output.set_level(after.logging.level)

        return follow

    startable = partial(require_startable, reactor=base.reactor)
    reloader = WorkersReloader(Reloader(base.settings, source, prepare, startable), base.peers)
    daemon.reload = reloader.on_signal
    return reloader


def _proxy(base: Base, parts: Parts) -> ProxyResource:
    return ProxyResource(
        parts.scheduler,
        clock=base.reactor,
        now=base.now,
        fresh_id=request_ids(base.random),
        trusted_proxies=base.settings.server.trusted_proxies,
        fast_path=parts.fast_path,
    )


def _management_trees(
    base: Base, auth: ManagementAuth, making: Callable[[LateImports], Management], records: Records, parts: Parts
) -> tuple[LateResource, LateResource]:
    imports = LateImports(base.reactor)
    manage = cache(partial(making, imports))
    if not base.peers.alone:
        manage()  # it does what other workers are asked for, too
    return late_pages(imports, manage, lambda: _admin(base, manage(), auth, records, parts))


def _management(
    base: Base,
    auth: ManagementAuth,
    tokens: Tokens,
    parts: Parts,
    views: WorkerViews,
    records: Records,
    reloader: WorkersReloader,
    alerts: Alerting,
    imports: LateImports,
) -> Management:
    from llmproxy.observability.requests_of_workers import RequestsOfWorkers
    from llmproxy.web.admin.sessions import Sessions
    from llmproxy.web.manage.endpoint import ManagementContext
    from llmproxy.web.manage.tree import Management

    settings, caching = base.settings, parts.caching
    limit = settings.cache.max_bytes if caching is not None and caching.state.storage.local is not None else 0
    context = ManagementContext(
        projects=base.store,
        tokens=base.store,
        denials=parts.refusals,
        revocations=tokens.unwritten,
        changes=tokens.changes,
        usage=records.usage,
        activity=records.activity,
        requests=RequestsOfWorkers(records.requests, base.peers),
        audit=records.audit,
        audit_table=records.audit_table,
        alerts=alerts.table,
        rotation=base.store,
        subjects=tokens.subjects,
        sessions=Sessions(base.store, base.now, base.random),
        issuers=tuple(issuers(settings)),
        apis=parts.endpoints,
        reload=reloader.reload,
        effective=reloader.own.effective,
        upstreams=parts,
        log=base.output,
        default_api=settings.default_api,
        standings=parts.quota.standings,
        auth=auth,
        keys=base.keys,
        creations=base.creations,
        references=base.secrets.rules.reference,
        clock=base.reactor,
        now=base.now,
        in_thread=imports.in_thread,
        cache=None if caching is None else CacheAdmin(caching, settings.cache.backend, limit, base.peers),
        counts=views.counts,
        peers=base.peers,
        groups=GroupTable(base.store, base.now),
        attributions=lambda: reloader.own.settings.attribution,
        providers=lambda: {name: api.provider for name, api in reloader.own.settings.apis.items()},
    )
    return Management(context)


def _admin(base: Base, manage: Management, auth: ManagementAuth, records: Records, parts: Parts) -> AdminPages:
    from llmproxy.web.admin.sessions import Sessions
    from llmproxy.web.admin.tree import AdminPages

    return AdminPages(
        perform=manage.perform,
        auth=auth,
        sessions=Sessions(base.store, base.now, base.random),
        audit=records.audit,
        now=base.now,
        identity=base.identity.sign_in,
        denials=parts.refusals,
    )


def _sites(base: Base, metrics: Metrics, records: Records) -> Callable[[Root], Site]:
    observers = (going_on(metrics.observe_all), *records.observers)
    made = (base.settings.server, base.reactor, base.coalescer, base.descriptors, base.buffers, observers, base.now)
    return lambda root: make_site(root, *made)
