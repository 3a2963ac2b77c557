"""The audit log: what must not be lost is on its medium before anybody is told that it is done."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator
from typing import SupportsBytes

from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from llmproxy import errors
from llmproxy.base.background import Task
from llmproxy.base.coroutines import deferred
from llmproxy.base.timestamps import rfc3339
from llmproxy.instruments import HealthCheck, Instrument
from llmproxy.interfaces import IAuditLogger, IHealthChecked, IInstrumented
from llmproxy.model import AuditEntry
from llmproxy.observability.append_file import AppendedFile, failure_reason
from llmproxy.observability.chained_file import ChainedFile

UNWRITTEN = "The audit log could not be written. Try again."


@implementer(IAuditLogger)
class NullAudit:
    """Forgets everything: for a proxy that has no audit log."""

    def log(self, entry: AuditEntry) -> Deferred[None]:
        return succeed(None)


@implementer(IAuditLogger, IHealthChecked, IInstrumented)
class FileAudit(Service):
    """Appends JSON lines to a file, in order. Those that come while the disk is busy share its next turn.

    Fails with L{errors.StoreUnavailable} where an entry is not known to be on the disk.
    """

    name = "audit"
    _log = Logger(namespace="llmproxy.audit")

    def __init__(
        self,
        path: str,
        clock: IReactorTime,
        in_thread: Callable[..., Deferred[None]],
        *,
        redact: Callable[[str], str] = str,
        chain_key: SupportsBytes | None = None,
        sync: bool = True,
        limit: int = 1000,
        patience: float = 10.0,
    ) -> None:
        """
        @param in_thread: Calls its argument in a thread and fires with the result.
        @param redact: Masks secrets in a rendered line.
        @param chain_key: Keys the L{chain<llmproxy.base.audit_chain>} that entries make; C{None} for none.
        @param sync: Whether an entry counts as written only when it is on the medium.
        @param limit: How many entries wait for the disk at most.
        @param patience: Seconds an entry waits for it at most, and stopping too.
        """
        self._file = AppendedFile(path)
        self._chain = None if chain_key is None else ChainedFile(self._file, path, chain_key)
        self._sync = sync
        self._path = path
        self._clock = clock
        self._in_thread = in_thread
        self._redact = redact
        self._limit = limit
        self._patience = patience
        self._waiting: deque[tuple[str, Deferred[None]]] = deque()
        self._busy = False
        self._stopped = False
        self._task = Task("audit", clock)
        self.tasks = (self._task,)
        self._wrong = ""
        self._writing: Deferred[None] = succeed(None)

    def instruments(self) -> Iterator[Instrument]:
        return (each.labelled("audit") for each in self._file.instruments())

    def health_checks(self) -> Iterator[HealthCheck]:
        yield HealthCheck("audit", lambda: self.state)

    @property
    def state(self) -> str:
        """C{ok}, or why nothing can be written since the last attempt: it is tried again with the next entry."""
        return self._wrong or "ok"

    def log(self, entry: AuditEntry) -> Deferred[None]:
        if self._stopped or len(self._waiting) >= self._limit:
            return fail(errors.StoreUnavailable(UNWRITTEN))
        written: Deferred[None] = Deferred()
        written.addTimeout(self._patience, self._clock, onTimeoutCancel=_too_late)
        self._waiting.append((self._redact(entry_text(entry)), written))
        if not self._busy:
            self._writing = Deferred.fromCoroutine(self._write())
        return written

    @deferred
    async def stopService(self) -> None:
        """Write what waits, then close the file; give up on a disk that does not answer."""
        Service.stopService(self)
        self._stopped = True
        ended: Deferred[None] = Deferred()
        self._writing.addCallback(lambda _: self._in_thread(self._file.close)).chainDeferred(ended)
        ended.addTimeout(self._patience, self._clock, onTimeoutCancel=_too_late)
        try:
            await ended
        except (OSError, errors.StoreUnavailable) as e:
            self._log.error("The audit log could not be closed: {error}", error=str(e))

    def _append(self, texts: list[str]) -> None:
        """Blocks."""
        if self._chain is not None:
            self._chain.append(texts, sync=self._sync)
        else:
            self._file.append("".join(f"{text}\n" for text in texts).encode("utf-8", "surrogatepass"), sync=self._sync)

    async def _write(self) -> None:
        self._busy = True
        while self._waiting:
            entries = tuple(self._waiting)
            self._waiting.clear()
            outcome: Failure | None = None
            try:
                await self._in_thread(self._append, [text for text, _ in entries])
                self._wrong = ""
                self._task.worked()
            except Exception as e:
                if not isinstance(e, OSError):
                    self._task.failed()
                self._wrong = failure_reason(e)
                self._log.error(
                    "{count} audit entries could not be appended to {path}: {error}",
                    count=len(entries),
                    path=self._path,
                    error=str(e),
                )
                outcome = Failure(errors.StoreUnavailable(UNWRITTEN))
            for _, written in entries:
                if not written.called:
                    written.callback(None) if outcome is None else written.errback(outcome)
        self._busy = False


def entry_text(entry: AuditEntry) -> str:
    """The entry as a JSON object on one line, without its end; its time as RFC 3339 in UTC."""
    fields = {
        "at": rfc3339(entry.at, digits=6),
        "action": entry.action,
        "actor": entry.actor,
        "outcome": entry.outcome,
        "project_id": entry.project_id,
        "token_id": entry.token_id,
        "request_id": entry.request_id,
        "client": entry.client,
        "details": dict(entry.details),
    }
    return json.dumps(fields, separators=(",", ":"), default=str)


def _too_late(result: object, seconds: float) -> object:
    raise errors.StoreUnavailable(UNWRITTEN)
