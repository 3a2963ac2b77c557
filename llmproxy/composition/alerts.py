"""Alerts of budgets, put together: who notices, where it is recorded, and who is told."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from twisted.logger import Logger
from twisted.web.client import Agent

from llmproxy.config.alert_settings import AlertSettings
from llmproxy.config.load import read_private
from llmproxy.config.model import Settings
from llmproxy.errors import AuditUnavailable, StoreUnavailable
from llmproxy.interfaces import IAuditLogger, ICounters
from llmproxy.limits.budget_alerts import BudgetAlerts
from llmproxy.model import AuditEntry, BudgetAlert, Claim
from llmproxy.observability.alert_texts import alert_json, alert_text
from llmproxy.observability.event_bus import MemoryBus
from llmproxy.observability.redaction import Redactor
from llmproxy.observability.webhook import Webhook, WebhookTarget, message
from llmproxy.store.budget_alerts import AlertTable
from llmproxy.store.store import Store
from llmproxy.wire.client.tls import TrustPolicy

_log = Logger()


@dataclass(frozen=True)
class Alerting:
    """What alerts.

    @ivar budgets: Notices; C{webhook}: tells a receiver.
    @ivar table: What was alerted.
    @ivar target: Makes what the settings say of the receiver; L{ValueError} where its secret is not there, L{OSError}
        where its authorities cannot be read.
    """

    budgets: BudgetAlerts
    webhook: Webhook
    table: AlertTable
    target: Callable[[AlertSettings], WebhookTarget | None]

    @property
    def parts(self) -> tuple[object, ...]:
        """Of it what is started, stopped and shown with the daemon."""
        return (self.budgets, self.webhook)

    def prepare(self, before: Settings, after: Settings) -> Callable[[], None]:
        """What goes on with the second settings; raises as C{target}."""
        if after.alerts == before.alerts:
            return _stay
        target = self.target(after.alerts)

        def follow() -> None:
            self.webhook.follow(target)
            self.budgets.follow(after.alerts.thresholds)

        return follow


def _stay() -> None:
    """Nothing is other."""


def alerting(
    settings: Settings,
    reactor: Any,
    environ: Mapping[str, str],
    *,
    store: Store,
    counters: ICounters,
    audit: IAuditLogger,
    bus: MemoryBus,
    now: Callable[[], float],
    new_id: Callable[[], str],
    redactor: Redactor,
    redelivers: Callable[[], bool],
) -> Alerting:
    """L{ValueError} where the webhook's secret is not there.

    @param redactor: Masks the secret, and others where they should not be.
    @param redelivers: Whether this is the process that sends again, after a restart, what no receiver has got.
    """
    table, chosen = AlertTable(store, now), settings.alerts
    target = partial(_target, environ, reactor, redactor.add)
    webhook = Webhook(target(chosen), reactor, now, partial(_delivered, table))
    charged = store.budgets_charged if settings.ledger.enabled else None
    budgets = BudgetAlerts(
        chosen.thresholds,
        partial(_spent, counters) if charged is None else lambda claims: charged([claim.key for claim in claims]),
        table.record,
        partial(_report, audit, bus, redactor, webhook),
        partial(_redeliver, table, webhook, redelivers),
        table.purge,
        reactor,
        now,
        new_id,
    )
    return Alerting(budgets, webhook, table, target)


async def _redeliver(table: AlertTable, webhook: Webhook, redelivers: Callable[[], bool]) -> None:
    """Send again what was alerted before this process began and nobody has got."""
    if webhook.has_target and redelivers():
        for alert in await table.undelivered():
            _send(webhook, alert)


def _send(webhook: Webhook, alert: BudgetAlert) -> None:
    shown = alert_json(alert)
    webhook.put(message(alert.id, shown["type"], shown["at"], shown))


async def _report(
    audit: IAuditLogger, bus: MemoryBus, redactor: Redactor, webhook: Webhook, alert: BudgetAlert
) -> None:
    """To all who are to know; one that fails keeps it from nobody else."""
    shown = alert_json(alert)
    _log.warn("{text}", text=alert_text(alert), alert=alert.id)
    bus.publish_line(redactor.redact(json.dumps(shown, separators=(",", ":"))).encode() + b"\n")
    _send(webhook, alert)
    token = alert.owner_id if alert.owner == "token" else ""
    entry = AuditEntry(
        alert.at, "budget.alert", "proxy", project_id=alert.project_id, token_id=token, details=_details(shown)
    )
    try:
        await audit.log(entry)
    except AuditUnavailable:
        _log.failure("An alert could not be written into the audit log.")


def _details(shown: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in shown.items() if name not in ("at", "project_id", "text")}


async def _spent(counters: ICounters, claims: Sequence[Claim]) -> dict[str, int]:
    """Without a ledger nobody knows it better; what processes have in advance is in it."""
    used = await counters.used(claims)
    return {claim.key: amount for claim, amount in zip(claims, used, strict=True)}


def _target(
    environ: Mapping[str, str], reactor: Any, learn: Callable[[str], object], alerts: AlertSettings
) -> WebhookTarget | None:
    chosen = alerts.webhook
    if not alerts.thresholds or not chosen.url:
        return None

    def secret() -> str:
        value = _secret(chosen.secret, environ)
        learn(value)  # a file may have another by now
        return value

    try:
        secret()
    except (ValueError, OSError) as e:
        raise ValueError(f"alerts.webhook.secret: {e}") from e
    agent = Agent(reactor, contextFactory=TrustPolicy(chosen.ca_file), connectTimeout=chosen.timeout)
    return WebhookTarget(chosen.url, secret, agent, chosen.timeout, chosen.attempts, chosen.queue_size)


async def _delivered(table: AlertTable, alert_id: str) -> None:
    try:
        await table.mark_delivered(alert_id)
    except StoreUnavailable:
        _log.warn("That the alert {id} was delivered could not be stored.", id=alert_id)


def _secret(reference: str, environ: Mapping[str, str]) -> str:
    """What it refers to; L{ValueError} where that is empty, or open to others."""
    scheme, _, name = reference.partition(":")
    if scheme == "env":
        found = environ.get(name, "").strip()
        if not found:
            raise ValueError(f"the variable {name} is not set")
        return found
    mode, text = read_private(name)
    if mode & 0o077:
        raise ValueError(f"{name} is open to others than its owner (chmod 600 {name})")
    if not text.strip():
        raise ValueError(f"{name} is empty")
    return text.strip()
