"""What the daemon writes down: the audit log, events for the sinks, the access log, and the ledger."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, SupportsBytes

from llmproxy import plugins
from llmproxy.base.own_threads import OwnThreads
from llmproxy.base.peers import Peers
from llmproxy.brief_record import BriefRecord
from llmproxy.config.model import Settings
from llmproxy.interfaces import IAuditLogger, IEventSink, IEventSinkFactory
from llmproxy.ledger import Ledger
from llmproxy.ledger.journal import JournalSize
from llmproxy.ledger.records import LedgerLineOpening
from llmproxy.ledger.reports import Reports
from llmproxy.ledger.sql import LedgerTable
from llmproxy.limits.plan import charges
from llmproxy.metering.catalog import own_prices, provider
from llmproxy.metering.prices import Prices
from llmproxy.observability.access_log import AccessLog
from llmproxy.observability.activity import Activity
from llmproxy.observability.audit import FileAudit, NullAudit
from llmproxy.observability.event_bus import MemoryBus
from llmproxy.observability.log_output import LogOutput
from llmproxy.observability.recent_requests import RecentRequests
from llmproxy.observability.redaction import Redactor
from llmproxy.observability.request_lines import RequestLines, access_fields
from llmproxy.observability.stored_audit import StoredAudit
from llmproxy.proxy.reporting import Observer, going_on
from llmproxy.store.audit_log import AuditTable
from llmproxy.store.store import Store


@dataclass(frozen=True)
class Records:
    """Where requests and changes are written down.

    @ivar audit_table: Where entries are in the store, if they are; C{audit_parts}: what writes them.
    @ivar observers: Called with the requests that are over.
    @ivar books: The ledger in the store; C{usage}: reports of what it has.
    @ivar activity: What went on, over time; C{requests}: the last ones of this process.
    """

    audit: IAuditLogger
    audit_table: AuditTable | None
    audit_parts: tuple[object, ...]
    bus: MemoryBus
    access: AccessLog
    observers: tuple[Observer, ...]
    ledger: Ledger | None
    books: LedgerTable
    usage: Reports
    activity: Activity
    requests: RecentRequests

    @property
    def parts(self) -> tuple[object, ...]:
        """What is started, stopped and shown with the daemon."""
        return (self.ledger, self.books, *self.audit_parts, self.bus, self.access, self.activity)


def make_records(
    settings: Settings,
    reactor: Any,
    now: Callable[[], float],
    run: str,
    store: Store,
    output: LogOutput,
    redactor: Redactor,
    audit_key: SupportsBytes,
    peers: Peers,
) -> Records:
    """The logs, sinks and ledger that the settings name; L{ValueError} where nobody provides a sink, or it refuses.

    @param run: A name for this process that no other ever has.
    @param audit_key: Keys the chain of audit entries.
    """
    lines, queue_size = RequestLines(redactor), settings.events.queue_size
    bus = MemoryBus(
        _sinks(settings, reactor), reactor, queue_size=queue_size, scrub=redactor.record, lines=lines.events
    )
    access = AccessLog(_access_lines(output, lines), reactor)
    activity, requests = Activity(store, reactor, now, peers), RecentRequests()
    logged = (access.observe_all,) if settings.logging.access else ()
    observers = (bus.publish_all, requests.observe_all, going_on(activity.observe_all), *logged)
    books = LedgerTable(store, now, charges, attribution_values=settings.ledger.attribution_values)
    ledger = _ledger(settings, reactor, books, now, run, redactor)
    file = _audit_file(settings, reactor, redactor, audit_key)
    table = AuditTable(store, audit_key, now) if settings.audit.store else None
    stored = None
    if table is not None:
        stored = StoredAudit(file, table, reactor, now, redact=redactor.redact, keep=settings.audit.keep)
    audit: IAuditLogger = stored or file or NullAudit()
    parts = tuple(part for part in (file, stored) if part is not None)
    reports = Reports(books, ledger, reactor, peers)
    return Records(audit, table, parts, bus, access, observers, ledger, books, reports, activity, requests)


def _access_lines(output: LogOutput, lines: RequestLines) -> Callable[[Sequence[BriefRecord]], None]:
    """Writes records among the logs, in the form that those have."""
    if output.is_json:
        return lambda records: output.write_masked(lines.access_lines(records), len(records))
    return lambda records: output.write([access_fields(record.whole()) for record in records])


def _audit_file(settings: Settings, reactor: Any, redactor: Redactor, key: SupportsBytes) -> FileAudit | None:
    chosen = settings.audit
    if not chosen.file:
        return None
    threads = OwnThreads(reactor, "audit")
    sync = chosen.fsync == "always"
    return FileAudit(chosen.file, reactor, threads.call, redact=redactor.redact, chain_key=key, sync=sync)


def _sinks(settings: Settings, reactor: Any) -> dict[str, IEventSink]:
    """The sinks by a name of their own, each made by the plugin that the settings name."""
    made: dict[str, IEventSink] = {}
    for number, entry in enumerate(settings.events.sinks):
        factory = plugins.find(IEventSinkFactory, entry.type)
        made[f"{entry.type}-{number}"] = factory.sink(entry.options, reactor)
    return made


def _ledger(
    settings: Settings,
    reactor: Any,
    books: LedgerTable,
    now: Callable[[], float],
    run: str,
    redactor: Redactor,
) -> Ledger | None:
    chosen = settings.ledger
    if not chosen.enabled:
        return None
    return Ledger(
        books,
        chosen.directory or Path(settings.state_dir) / "ledger",
        reactor,
        now,
        OwnThreads(reactor, "ledger", size=2).call,
        run=run,
        journal_size=JournalSize(chosen.segment_bytes, chosen.max_bytes),
        interval=chosen.interval,
        keep_lines=chosen.keep_lines,
        keep_days=chosen.keep_days,
        price=_input_price(settings),
        secrets=redactor,
    )


def _input_price(settings: Settings) -> Callable[[LedgerLineOpening], float | None]:
    """Prices the input of requests whose process ended first; with prices of its own, as it is used in a thread."""
    prices = Prices(own_prices(settings.prices))
    providers = {name: provider(api) for name, api in settings.apis.items()}

    def priced(left: LedgerLineOpening) -> float | None:
        known, units = providers.get(left.api, ""), {"input_tokens": left.estimated_input_tokens}
        return prices.cost(left.api, known, "", left.model, units, left.at)

    return priced
