"""Audit entries that repeat: the first is written at once, those that follow it within a minute as one."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from llmproxy.base.coroutines import deferred
from llmproxy.interfaces import IAuditLogger
from llmproxy.model import AuditEntry

WINDOW = 60.0  # seconds
MAX_KEYS = 10_000  # of tokens and addresses whose entries are counted apart

Key = tuple[str, str, str, str, str, str]


@dataclass
class _Window:
    """What has come since the entry that began it."""

    began: float
    last: AuditEntry
    count: int = 0


@implementer(IAuditLogger)
class RepeatedEntries(Service):
    """Hands the first entry of its kind on, and counts the rest of that minute: one more entry tells how many.

    Of a kind are entries with the same action, outcome, code, project and token; without a token, with the same client.
    The later entry is the last of them, with C{count} in its details. What was counted is in memory until then, and is
    written when this service stops. Beyond C{keys} kinds, further ones are counted together, without naming anybody.

    @ivar lost: How many entries could not be written when they were due for the last time.
    """

    name: Any = "repeated entries"
    _log = Logger(namespace="llmproxy.audit")

    def __init__(
        self, audit: IAuditLogger, clock: IReactorTime, *, window: float = WINDOW, keys: int = MAX_KEYS
    ) -> None:
        self.lost = 0
        self._audit = audit
        self._clock = clock
        self._length = window
        self._limit = keys
        self._windows: OrderedDict[Key, _Window] = OrderedDict()
        self._timer: IDelayedCall | None = None
        self._stopped = False

    def log(self, entry: AuditEntry) -> Deferred[None]:
        if self._stopped:
            return self._audit.log(entry)
        key = _key(entry)
        window = self._windows.get(key)
        if window is None and len(self._windows) >= self._limit:
            entry = replace(entry, actor="various", project_id="", token_id="", client="", request_id="")
            key = _key(entry)
            window = self._windows.get(key)
        if window is None:
            self._windows[key] = window = _Window(self._clock.seconds(), entry)
            self._wait()
            return self._begun(key, window)
        window.count += 1
        window.last = entry
        return succeed(None)

    @deferred
    async def _begun(self, key: Key, window: _Window) -> None:
        """Write the first. Where that fails the next is a first one again, and those counted meanwhile are due."""
        try:
            await self._audit.log(window.last)
        except Exception:
            if self._windows.get(key) is window:
                del self._windows[key]
            if window.count:
                await self._written(window)
            raise

    @deferred
    async def stopService(self) -> None:
        """Write what was counted; what comes later is written as it comes."""
        Service.stopService(self)
        self._stopped = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        windows, self._windows = self._windows, OrderedDict()
        await DeferredList([self._written(window) for window in windows.values() if window.count])

    def _wait(self) -> None:
        """Be woken when the oldest window ends."""
        if self._windows and (self._timer is None or not self._timer.active()):
            ends = next(iter(self._windows.values())).began + self._length
            self._timer = self._clock.callLater(max(0.0, ends - self._clock.seconds()), self._close)

    def _close(self) -> None:
        now = self._clock.seconds()
        while self._windows:
            key, window = next(iter(self._windows.items()))
            if window.began + self._length > now:
                break
            del self._windows[key]
            if window.count:
                self._written(window)
        self._wait()

    @deferred
    async def _written(self, window: _Window) -> None:
        """One entry for all that were counted; never fails."""
        entry = replace(window.last, details={**window.last.details, "count": window.count})
        try:
            await self._audit.log(entry)
        except CancelledError:
            raise
        except Exception as e:
            self.lost += window.count
            self._log.error(
                "{count} audit entries ({action}) could not be written and are lost: {error}",
                count=window.count,
                action=entry.action,
                error=str(e),
            )


def _key(entry: AuditEntry) -> Key:
    code = entry.details.get("code") or entry.details.get("error")
    client = "" if entry.token_id else entry.client
    return entry.action, entry.outcome, str(code), entry.project_id, entry.token_id, client
