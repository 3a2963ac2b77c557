"""What the audit log gets to know of a management call: that it is to be made, and how it ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from twisted.internet.defer import CancelledError
from twisted.logger import Logger

from llmproxy.errors import AuditUnavailable
from llmproxy.interfaces import IAuditLogger
from llmproxy.model import AuditEntry

# What takes something away from somebody is done though it cannot be written down: a full disk keeps no token valid.
URGENT_OPERATIONS = frozenset(
    {
        *("revoke_token", "revoke_project_tokens", "deactivate_project", "update_project", "revoke_key"),
        *("revoke_subject", "end_session"),
    }
)


@dataclass
class AuditDraft:
    """One change, as the audit log will have it; filled while it is made."""

    action: str
    project_id: str = ""
    token_id: str = ""
    details: dict[str, object] = field(default_factory=dict)


class AuditTrail:
    """Writes down the changes that one caller makes with one request.

    @param actor: As the audit log calls the caller; C{name}: as people do, where that is another; C{client}: the
        caller's address.
    @param now: Seconds since the epoch.
    """

    _log = Logger(namespace="llmproxy.web.manage.endpoint")

    def __init__(
        self, audit: IAuditLogger, now: Callable[[], float], actor: str, client: str, request_id: str, name: str = ""
    ) -> None:
        self._audit = audit
        self._now = now
        self._actor = actor
        self._client = client
        self._request_id = request_id
        self._name = {"actor_name": name} if name else {}

    async def intend(self, operation: str, draft: AuditDraft) -> None:
        """Write that this is about to be done; L{AuditUnavailable} where that fails, and it must not be done then."""
        try:
            await self._write(draft, "intent", draft.details)
        except AuditUnavailable as e:
            if operation not in URGENT_OPERATIONS:
                raise AuditUnavailable("The audit log could not be written, so nothing was changed. Try again.") from e

    async def result(self, draft: AuditDraft, error: Exception | None = None) -> None:
        """Write how it ended; L{AuditUnavailable} where that fails."""
        failed = {"error": getattr(error, "code", "internal_error")} if error else {}
        await self._write(draft, "failure" if error else "success", draft.details | failed)

    async def _write(self, draft: AuditDraft, outcome: str, details: dict[str, object]) -> None:
        entry = AuditEntry(
            at=self._now(),
            action=draft.action,
            actor=self._actor,
            outcome=outcome,
            project_id=draft.project_id,
            token_id=draft.token_id,
            request_id=self._request_id,
            client=self._client,
            details=self._name | details,
        )
        try:
            await self._audit.log(entry)
        except CancelledError:
            raise
        except Exception as e:
            self._log.failure("The audit log could not be written.")
            raise AuditUnavailable from e
