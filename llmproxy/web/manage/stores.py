"""What the management API asks of stores of its own."""

from __future__ import annotations

from typing import Any, Protocol

from twisted.internet.defer import Deferred

from llmproxy.base.audit_chain import ChainReport
from llmproxy.management_key import ManagementKey
from llmproxy.model import BudgetAlert, Group, Page, PageRequest, Token
from llmproxy.store.admin_sessions import AdminSession
from llmproxy.store.audit_log import AuditFilter
from llmproxy.store.budget_alerts import AlertFilter
from llmproxy.store.revoked_subjects import SubjectRevocation


class ManagementKeys(Protocol):
    """Stores the credentials of those who manage; of the keys themselves only keyed hashes."""

    def create_key(self, key: ManagementKey) -> Deferred[tuple[ManagementKey, str]]:
        """Issue a key; fire with what was stored and the secret, which is never shown again.

        C{id}, C{prefix} and C{created_at} are chosen by the store.
        """

    def get_key(self, key_id: str) -> Deferred[ManagementKey]:
        """Fire with the key of this id; L{errors.NotFound} where there is none."""

    def key_page(self, request: PageRequest) -> Deferred[Page[ManagementKey]]:
        """Fire with one page of them, oldest first; L{errors.Invalid} where the cursor is malformed."""

    def revoke_key(self, key_id: str) -> Deferred[ManagementKey]:
        """Deactivate, and keep the time it was first done; L{errors.NotFound} where there is none."""

    def validate_key(self, secret: str) -> Deferred[ManagementKey]:
        """Fire with the key that this is, and write down that it was used, to the minute.

        L{errors.TokenNotFound} or L{errors.TokenInactive} where it opens nothing, L{errors.StoreUnavailable} where
        that could not be determined.
        """


class Groups(Protocol):
    """Stores the groups that projects are in: a tree."""

    def create_group(self, group: Group) -> Deferred[Group]:
        """Fire with what was stored; L{errors.Invalid} where there is no such parent, or too many above it."""

    def get_group(self, group_id: str) -> Deferred[Group]:
        """Fire with the group of this id; L{errors.NotFound} where there is none."""

    def group_page(
        self, request: PageRequest, search: str = "", ids: tuple[str, ...] | None = None
    ) -> Deferred[Page[Group]]:
        """Fire with one page of them, oldest first; L{errors.Invalid} where the cursor is malformed.

        @param search: Only those whose name has this in it, in any case; C{""} for all.
        @param ids: Only those of these ids; C{None} for all.
        """

    def update_group(self, group: Group) -> Deferred[Group]:
        """Store it as it is now; L{errors.ChangedMeanwhile} where it has another revision, L{errors.Invalid} where it
        would be below itself."""

    def delete_group(self, group_id: str, revision: int = 0) -> Deferred[None]:
        """Remove it; L{errors.Conflict} where it has projects or groups."""


class Creations(Protocol):
    """Remembers for a day what was answered to creations, so that a repeated one creates nothing."""

    def begin(self, name: str, fingerprint: str) -> Deferred[str | None]:
        """Fire with what was answered under this name before; with C{None} where nothing was: it is begun then.

        Fail with L{errors.management.IdempotencyInProgress} where another is under way, with
        L{errors.management.IdempotencyKeyReused} where it was another request.

        @param name: 64 characters; C{fingerprint} is of the request, likewise.
        """

    def finish(self, name: str, answer: str) -> Deferred[None]:
        """Fire when the response, which may have secrets in it, is stored."""

    def release(self, name: str) -> Deferred[None]:
        """It came to nothing: fire when it may be begun again."""


class TokenRotation(Protocol):
    """Gives tokens other secrets."""

    def rotate_token(self, token_id: str, grace: float, revision: int = 0) -> Deferred[tuple[Token, str, float]]:
        """Fire with the token, its new secret, and until when the one before is valid, in seconds since the epoch.

        L{errors.NotFound} where there is none, L{errors.Conflict} where it is revoked, L{errors.ChangedMeanwhile} where
        it has another revision.

        @param grace: Seconds for which the secret before stays valid; one from before that is not valid any more.
        """


class RevokedSubjects(Protocol):
    """Stores the subjects of other issuers whose tokens are refused."""

    def revoke(self, revocation: SubjectRevocation) -> Deferred[SubjectRevocation]:
        """Fire with what was stored, in place of what was revoked of the same subject before.

        C{revoked_at} is chosen by the store.
        """

    def restore(self, subject: str) -> Deferred[SubjectRevocation]:
        """Fire with what is not revoked any more; L{errors.NotFound} where nothing was of this subject."""

    def page(self, request: PageRequest) -> Deferred[Page[SubjectRevocation]]:
        """Fire with one page of them, oldest first; L{errors.Invalid} where the cursor is malformed."""


class SignedIn(Protocol):
    """Who is signed in to the admin pages."""

    async def all(self) -> list[AdminSession]:
        """The sessions that are not over, the one that was seen last first."""

    async def end(self, session_id: str) -> bool:
        """Whether there was one to end."""


class AlertEntries(Protocol):
    """What was alerted of budgets."""

    def alert_page(self, wanted: AlertFilter, request: PageRequest) -> Deferred[Page[BudgetAlert]]:
        """Fire with a page of alerts, the latest first; L{errors.Invalid} where the cursor is none."""


class AuditEntries(Protocol):
    """The audit log in the store."""

    def verify(self) -> Deferred[ChainReport]:
        """Fire with what all of it is found to be."""

    def page(self, wanted: AuditFilter, request: PageRequest) -> Deferred[Page[dict[str, Any]]]:
        """Fire with a page of entries, the latest first; L{errors.Invalid} where the cursor is none."""
