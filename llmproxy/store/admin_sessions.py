"""Who is signed in to the admin pages: SQL. Every function here blocks."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, Row, delete, insert, or_, select, update

from llmproxy.store.tables import admin_sessions

MAX_SESSIONS = 1000  # the ones that were seen longest ago have to go for new ones


class AdminSession(NamedTuple):
    """Somebody who is signed in, with one browser.

    @ivar hash: Of the secret that the cookie holds; C{previous_hash}: of the one before, for requests under way.
    @ivar csrf_token: What every form of it carries; it stays when the secret changes.
    @ivar subject: Who that is, as the audit log calls them.
    @ivar principal: What the subject may do, as JSON, where an identity provider has said so; C{None} for a key.
    @ivar rotated_at: When the cookie got its present secret.
    """

    id: str
    hash: str
    previous_hash: str | None
    csrf_token: str
    subject: str
    created_at: float
    rotated_at: float
    last_seen_at: float
    client: str
    user_agent: str
    principal: str | None = None


def add_session(connection: Connection, session: AdminSession) -> None:
    connection.execute(insert(admin_sessions).values(**session._asdict()))
    newest = select(admin_sessions.c.last_seen_at).order_by(admin_sessions.c.last_seen_at.desc())
    oldest = connection.scalar(newest.offset(MAX_SESSIONS).limit(1))
    if oldest is not None:
        connection.execute(delete(admin_sessions).where(admin_sessions.c.last_seen_at <= oldest))


def find_session(connection: Connection, secret_hash: str) -> AdminSession | None:
    by_hash = or_(admin_sessions.c.hash == secret_hash, admin_sessions.c.previous_hash == secret_hash)
    row = connection.execute(select(admin_sessions).where(by_hash)).first()
    return None if row is None else _session(row)


def touch_session(connection: Connection, session_id: str, now: float) -> None:
    connection.execute(update(admin_sessions).where(admin_sessions.c.id == session_id).values(last_seen_at=now))


def rotate_session(connection: Connection, session: AdminSession, new_hash: str, now: float) -> bool:
    """Give it another secret; whether it still had the one that is known of it."""
    same = (admin_sessions.c.id == session.id) & (admin_sessions.c.hash == session.hash)
    changed = update(admin_sessions).where(same)
    return bool(
        connection.execute(
            changed.values(hash=new_hash, previous_hash=session.hash, rotated_at=now, last_seen_at=now)
        ).rowcount
    )


def list_sessions(connection: Connection) -> list[AdminSession]:
    """All of them, the one that was seen last first."""
    rows = connection.execute(select(admin_sessions).order_by(admin_sessions.c.last_seen_at.desc()))
    return [_session(row) for row in rows]


def remove_session(connection: Connection, session_id: str) -> bool:
    return bool(connection.execute(delete(admin_sessions).where(admin_sessions.c.id == session_id)).rowcount)


def purge_sessions(connection: Connection, created_before: float, seen_before: float) -> int:
    """Remove those that are over; how many that were."""
    old = or_(admin_sessions.c.created_at < created_before, admin_sessions.c.last_seen_at < seen_before)
    return connection.execute(delete(admin_sessions).where(old)).rowcount


def _session(row: Row[tuple[object, ...]]) -> AdminSession:
    return AdminSession(**row._mapping)
