"""Revocations count in this process at once; those that the store could not take are tried again until it does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Literal, NamedTuple, Protocol

from twisted.application.service import Service
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from llmproxy.auth.revocation_file import RevocationFile
from llmproxy.base.background import Loop
from llmproxy.base.coroutines import deferred
from llmproxy.errors import NotFound, StoreUnavailable
from llmproxy.errors.management import RevocationNotStored
from llmproxy.instruments import Gauge, HealthCheck, Instrument
from llmproxy.interfaces import IHealthChecked, IInstrumented, IOpenable

INTERVAL_SECONDS = 1.0
MAX_UNWRITTEN = 10_000
CHANGE_SECONDS = 20.0  # for which a change of projects or tokens waits for those before it

IN_FORCE = "The revocation of {kind} {id} is in force here, and could not be stored: {why}."

UNSAVED = "The revocation of {kind} {id} was never stored: revoke it again."
SAVED = "The revocation of {kind} {id} is not stored yet: the next start on this state directory takes it up."

Kind = Literal["token", "tokens of project", "project", "subject"]


class RevocationTarget(NamedTuple):
    """What is revoked: one token, all tokens of a project, a project, or a subject of another issuer, by its id."""

    kind: Kind
    id: str


class TokenBlocker(Protocol):
    """Whoever lets tokens in."""

    def block(self, kind: str, name: str) -> None:
        """Refuse this from now on."""

    def unblock(self, kind: str, name: str) -> None:
        """Go by the store again."""


@implementer(IHealthChecked, IInstrumented, IOpenable)
class UnwrittenRevocations(Service):
    """Keeps what was revoked here and is not in the store yet: in memory, and in a file from which the next process on
    the same state directory takes it up, whatever ended this one.

    @ivar tasks: What it does in the background.
    """

    name: Any = "unwritten revocations"
    _log = Logger()

    def __init__(
        self,
        blocker: TokenBlocker,
        writes: dict[Kind, Callable[[str], Awaitable[object]]],
        clock: IReactorTime,
        hold: Callable[[], AbstractAsyncContextManager[None]],
        *,
        file: RevocationFile | None = None,
        limit: int = MAX_UNWRITTEN,
    ) -> None:
        """
        @param file: Where they outlive the process.
        @param writes: How each kind is written into the store.
        @param hold: Held by whoever changes something, so that no change undoes another.
        """
        self._blocker = blocker
        self._writes = writes
        self._hold = hold
        self._limit = limit
        self._file = file
        self._unsaved = False
        self._unwritten: dict[RevocationTarget, None] = {}
        self._loop = Loop("revocations", self.write, INTERVAL_SECONDS, clock)
        self.tasks = (self._loop,)

    def __len__(self) -> int:
        return len(self._unwritten)

    @property
    def state(self) -> str:
        """C{ok}, or how many are in force here only."""
        if not self._unwritten:
            return "ok"
        unsaved = ", and not saved in the state directory" if self._unsaved else ""
        return f"{len(self)} in force here, not stored{unsaved}"

    def instruments(self) -> Iterator[Instrument]:
        yield Gauge("revocations_unwritten", "Revocations that are in force in this process only.", lambda: len(self))

    def health_checks(self) -> Iterator[HealthCheck]:
        yield HealthCheck("revocations", lambda: self.state, required=True)

    @deferred
    async def open(self) -> None:
        """Take up, before anything listens, what processes that have ended could not write."""
        if self._file is None:
            return
        left_behind = self._file.left_behind()
        for _, targets in left_behind:
            for kind, name in targets:
                if kind in self._writes:
                    self._blocker.block(kind, name)
                    self._unwritten[RevocationTarget(kind, name)] = None
        if left_behind:
            self._log.warn("{count} revocations were left unwritten: they are in force.", count=len(self))
            self._save()
            if not self._unsaved:
                for path, _ in left_behind:
                    path.unlink(missing_ok=True)
            await self.write()

    def _save(self) -> None:
        if self._file is None:
            return
        try:
            self._file.save(self._unwritten)
            self._unsaved = False
        except OSError as e:
            self._unsaved = True
            self._log.error("Unwritten revocations could not be saved: {reason}. They end with this process.", reason=e)

    def startService(self) -> None:
        Service.startService(self)
        self._loop.start()

    def stopService(self) -> None:
        Service.stopService(self)
        self._loop.stop()
        for target in self._unwritten:
            text = UNSAVED if self._unsaved or self._file is None else SAVED
            self._log.error(text, **target._asdict())

    @asynccontextmanager
    async def in_force(self, kind: Kind, name: str) -> AsyncIterator[None]:
        """Refuse it, and let the body write that. L{RevocationNotStored} where the store is to blame that it cannot."""
        target = RevocationTarget(kind, name)
        known = target in self._unwritten
        self._blocker.block(kind, name)
        try:
            yield
        except StoreUnavailable as e:
            if not known and len(self) >= self._limit:
                self._blocker.unblock(kind, name)
                raise
            self._unwritten[target] = None
            self._save()
            self._log.error(IN_FORCE, **target._asdict(), why=e.reason)
            raise RevocationNotStored(reason=e.reason) from e
        except BaseException:
            if not known:
                self._blocker.unblock(kind, name)
            raise
        self.withdraw(kind, name)

    def withdraw(self, kind: Kind, name: str) -> None:
        """The store has the last word on it again."""
        if RevocationTarget(kind, name) in self._unwritten:
            del self._unwritten[RevocationTarget(kind, name)]
            self._save()
        self._blocker.unblock(kind, name)

    async def write(self) -> None:
        """Try again, as far as the store takes them; never fails for its sake."""
        for target in list(self._unwritten):
            try:
                async with self._hold():
                    if target in self._unwritten:
                        await self._writes[target.kind](target.id)
            except StoreUnavailable:
                return
            except NotFound:
                self._log.warn("There is no {kind} {id} to revoke.", **target._asdict())
            else:
                self._log.info("The revocation of {kind} {id} is stored.", **target._asdict())
            self.withdraw(*target)
