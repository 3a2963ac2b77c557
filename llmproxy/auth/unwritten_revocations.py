"""Revocations count in this process at once; those that the store could not take are tried again until it does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Literal, NamedTuple, Protocol

from twisted.application.service import Service
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from llmproxy.base.background import Loop
from llmproxy.errors import NotFound, RevocationNotStored, StoreUnavailable
from llmproxy.instruments import Gauge, HealthCheck, Instrument
from llmproxy.interfaces import IHealthChecked, IInstrumented

INTERVAL_SECONDS = 1.0
MAX_UNWRITTEN = 10_000

IN_FORCE = "The revocation of {kind} {id} is in force here, and could not be stored: {why}."

Kind = Literal["token", "tokens of project", "project"]


class RevocationTarget(NamedTuple):
    """What is revoked: one token, all tokens of a project, or a project, by its id."""

    kind: Kind
    id: str


class TokenBlocker(Protocol):
    """Whoever lets tokens in."""

    def block(self, kind: str, name: str) -> None:
        """Refuse this from now on."""

    def unblock(self, kind: str, name: str) -> None:
        """Go by the store again."""


@implementer(IHealthChecked, IInstrumented)
class UnwrittenRevocations(Service):
    """Keeps what was revoked here and is not in the store yet: in memory, so it is lost when the process ends.

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
        limit: int = MAX_UNWRITTEN,
    ) -> None:
        """
        @param writes: How each kind is written into the store.
        @param hold: Held by whoever changes something, so that no change undoes another.
        """
        self._blocker = blocker
        self._writes = writes
        self._hold = hold
        self._limit = limit
        self._unwritten: dict[RevocationTarget, None] = {}
        self._loop = Loop("revocations", self.write, INTERVAL_SECONDS, clock)
        self.tasks = (self._loop,)

    def __len__(self) -> int:
        return len(self._unwritten)

    @property
    def state(self) -> str:
        """C{ok}, or how many are in force here only."""
        return f"{len(self)} in force here, not stored" if self._unwritten else "ok"

    def instruments(self) -> Iterator[Instrument]:
        yield Gauge("revocations_unwritten", "Revocations that are in force in this process only.", lambda: len(self))

    def health_checks(self) -> Iterator[HealthCheck]:
        yield HealthCheck("revocations", lambda: self.state, required=True)

    def startService(self) -> None:
        Service.startService(self)
        self._loop.start()

    def stopService(self) -> None:
        Service.stopService(self)
        self._loop.stop()
        for target in self._unwritten:
            self._log.error("The revocation of {kind} {id} was never stored: revoke it again.", **target._asdict())

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
            self._log.error(IN_FORCE, **target._asdict(), why=e.reason)
            raise RevocationNotStored(reason=e.reason) from e
        except BaseException:
            if not known:
                self._blocker.unblock(kind, name)
            raise
        self.withdraw(kind, name)

    def withdraw(self, kind: Kind, name: str) -> None:
        """The store has the last word on it again."""
        self._unwritten.pop(RevocationTarget(kind, name), None)
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
