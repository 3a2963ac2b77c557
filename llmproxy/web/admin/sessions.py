"""Who is signed in to the pages: a random secret in a cookie, its hash in the store, so that every process knows."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from typing import NamedTuple, Protocol, TypeVar

from sqlalchemy import Connection
from twisted.internet.defer import Deferred

from llmproxy.store import admin_sessions as table
from llmproxy.store.admin_sessions import AdminSession

T = TypeVar("T")

LONGEST_SECONDS = 12 * 3600.0  # from signing in until one has to sign in again
IDLE_SECONDS = 2 * 3600.0  # without a request
ROTATE_SECONDS = 15 * 60.0  # after which the cookie gets another secret
GRACE_SECONDS = 60.0  # for which the one before still counts, for requests that were under way
TOUCH_SECONDS = 60.0  # how far behind C{last_seen_at} may be


class SessionStore(Protocol):
    """What is asked of the store."""

    def read(self, work: Callable[[Connection], T]) -> Deferred[T]: ...

    def write(self, work: Callable[[Connection], T]) -> Deferred[T]: ...


class ActiveSession(NamedTuple):
    """A session that a request belongs to.

    @ivar secret: What its cookie holds; C{renewed}: whether the browser must be given it.
    """

    session: AdminSession
    secret: str
    renewed: bool = False


class Sessions:
    """Begins, finds and ends sessions. Every method that waits fails with L{StoreUnavailable} without a store."""

    def __init__(self, store: SessionStore, now: Callable[[], float], random: Callable[[int], bytes]) -> None:
        """
        @param now: Seconds since the epoch.
        """
        self._store = store
        self._now = now
        self._random = random

    async def begin(self, subject: str, client: str, user_agent: str, principal: str | None = None) -> ActiveSession:
        """A new session of whoever has just proven to be this subject.

        @param principal: As of an L{AdminSession}.
        """
        secret, now = self._new_secret(), self._now()
        session = AdminSession(
            id=self._random(16).hex(),
            hash=_hash(secret),
            previous_hash=None,
            csrf_token=self._random(32).hex(),
            subject=subject,
            created_at=now,
            rotated_at=now,
            last_seen_at=now,
            client=client[:64],
            user_agent=user_agent[:255],
            principal=principal,
        )
        await self._store.write(partial(_begin, session=session, now=now))
        return ActiveSession(session, secret, renewed=True)

    async def find(self, secret: str) -> ActiveSession | None:
        """The session whose cookie holds this; C{None} where it is over or never was."""
        if not 20 <= len(secret) <= 100:
            return None
        now, hashed = self._now(), _hash(secret)
        session = await self._store.read(partial(table.find_session, secret_hash=hashed))
        if session is None or _is_over(session, now):
            return None
        if hashed != session.hash:
            return ActiveSession(session, secret) if now - session.rotated_at < GRACE_SECONDS else None
        if now - session.rotated_at >= ROTATE_SECONDS:
            return await self._rotated(session, secret, now)
        if now - session.last_seen_at >= TOUCH_SECONDS:
            await self._store.write(partial(table.touch_session, session_id=session.id, now=now))
        return ActiveSession(session, secret)

    async def _rotated(self, session: AdminSession, secret: str, now: float) -> ActiveSession:
        fresh = self._new_secret()
        if await self._store.write(partial(table.rotate_session, session=session, new_hash=_hash(fresh), now=now)):
            return ActiveSession(session, fresh, renewed=True)
        return ActiveSession(session, secret)  # another request has just done it

    async def all(self) -> list[AdminSession]:
        """Those that are not over, the one that was seen last first."""
        now = self._now()
        return [each for each in await self._store.read(table.list_sessions) if not _is_over(each, now)]

    async def end(self, session_id: str) -> bool:
        """Whether there was one to end."""
        return await self._store.write(partial(table.remove_session, session_id=session_id))

    def _new_secret(self) -> str:
        return urlsafe_b64encode(self._random(32)).rstrip(b"=").decode()


def _begin(connection: Connection, session: AdminSession, now: float) -> None:
    table.purge_sessions(connection, now - LONGEST_SECONDS, now - IDLE_SECONDS)
    table.add_session(connection, session)


def _is_over(session: AdminSession, now: float) -> bool:
    return now - session.created_at >= LONGEST_SECONDS or now - session.last_seen_at >= IDLE_SECONDS


def _hash(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()
