"""Subjects of other issuers whose tokens are refused, in SQL: the ids are those of ledger and audit log."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from sqlalchemy import Connection, delete, insert, select, update

from llmproxy.base.coroutines import deferred
from llmproxy.errors import NotFound, TokenInactive
from llmproxy.model import Page, PageRequest
from llmproxy.store import pages
from llmproxy.store.store import Store
from llmproxy.store.tables import admin_sessions, revoked_subjects


class SubjectRevoked(TokenInactive):
    """A token that is good as far as its issuer knows."""

    message = "The access of this subject was revoked here."


class SubjectRevocation(NamedTuple):
    """That the tokens of a subject are refused.

    @ivar id: The subject's, as L{Grant.token_id<llmproxy.model.Grant>} has it.
    @ivar issued_before: Only tokens that were issued before this are, and those that do not say when; C{None}: all.
    """

    id: str
    issued_before: float | None = None
    revoked_at: float = 0.0
    reason: str = ""


class RevokedSubjectTable:
    """Keeps them in the store's database; every process is told of a change.

    @param now: Seconds since the epoch.
    """

    def __init__(self, store: Store, now: Callable[[], float]) -> None:
        self._store = store
        self._now = now

    @deferred
    async def revoke(self, revocation: SubjectRevocation) -> SubjectRevocation:
        """Revoke, in place of what was revoked of this subject before, and end its sessions on the pages."""
        stored = revocation._replace(revoked_at=self._now())
        await self._store.change_all(partial(_revoke, revocation=stored))
        return stored

    @deferred
    async def revoke_all_of(self, subject: str) -> SubjectRevocation:
        """Revoke whatever tokens it has and will have."""
        return await self.revoke(SubjectRevocation(subject))

    @deferred
    async def restore(self, subject: str) -> SubjectRevocation:
        """Accept its tokens again, and fire with what was revoked; L{NotFound} where nothing was."""
        return await self._store.change_all(partial(_restore, subject=subject))

    @deferred
    async def page(self, request: PageRequest) -> Page[SubjectRevocation]:
        """Fire with one page of them, oldest first; L{errors.Invalid} where the cursor is malformed."""
        return await self._store.report(partial(_page, request=request))

    @deferred
    async def check(self, subject: str, issued_at: float | None) -> None:
        """L{SubjectRevoked} where a token of this subject that was issued then is refused."""
        await self._store.read(partial(check, subject=subject, issued_at=issued_at))


def check(connection: Connection, subject: str, issued_at: float | None) -> None:
    """L{SubjectRevoked} where a token of this subject that was issued then is refused.

    @param issued_at: In seconds since the epoch; C{None} where the token does not say.
    """
    found = connection.execute(select(revoked_subjects.c.issued_before).where(revoked_subjects.c.id == subject)).first()
    if found is not None and (found.issued_before is None or issued_at is None or issued_at < found.issued_before):
        raise SubjectRevoked(token_id=subject)


def _revoke(connection: Connection, revocation: SubjectRevocation) -> None:
    values = revocation._asdict()
    changed = update(revoked_subjects).where(revoked_subjects.c.id == revocation.id).values(**values)
    if not connection.execute(changed).rowcount:
        connection.execute(insert(revoked_subjects).values(**values))
    sessions = (admin_sessions.c.subject == revocation.id) & admin_sessions.c.principal.is_not(None)
    if revocation.issued_before is not None:
        sessions &= admin_sessions.c.created_at < revocation.issued_before
    connection.execute(delete(admin_sessions).where(sessions))


def _restore(connection: Connection, subject: str) -> SubjectRevocation:
    row = connection.execute(select(revoked_subjects).where(revoked_subjects.c.id == subject)).first()
    if row is None:
        raise NotFound(f"Nothing is revoked of a subject {subject}.")
    connection.execute(delete(revoked_subjects).where(revoked_subjects.c.id == subject))
    return SubjectRevocation(**row._mapping)


def _page(connection: Connection, request: PageRequest) -> Page[SubjectRevocation]:
    by = (revoked_subjects.c.revoked_at, revoked_subjects.c.id)
    rows, cursor = pages.page(connection, select(revoked_subjects), by, request)
    total = pages.total(connection, select(revoked_subjects.c.id), request)
    return Page([SubjectRevocation(**row._mapping) for row in rows], total, cursor)
