"""Hears of changes that other processes make to projects and tokens, so that a revoked one is not used for long."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from llmproxy.base.background import Loop, Task
from llmproxy.base.coroutines import deferred, within
from llmproxy.base.ttl_cache import CacheLease
from llmproxy.errors import ProxyError, StoreUnavailable
from llmproxy.instruments import Counter, HealthCheck, Instrument
from llmproxy.interfaces import IHealthChecked, IInstrumented, IOpenable
from llmproxy.model import Changes
from llmproxy.wire.deadline import Deadline, Deadlines

if TYPE_CHECKING:
    from llmproxy.redis import RedisClient

POLL_INTERVAL = 0.4  # seconds between two polls
POLL_TIMEOUT = 1.0  # seconds for a poll
MAX_SILENCE = 5.0  # seconds without a successful poll after which nothing that is cached of tokens is used
ALL_PROJECTS = "*"  # what Redis is told where any project may have changed
MAX_PROJECT_ID_CHARS = 255


class ChangingStore(Protocol):
    """A store that numbers its changes."""

    def changes(self, epoch: int | None) -> Deferred[Changes]: ...
    def announce(self, project_id: str) -> None: ...
    def on_commit(self, tell: Any) -> None: ...


@implementer(IHealthChecked, IInstrumented, IOpenable)
class ChangeFeed(MultiService):
    """Polls the store for changes, several times a second, and announces each as if it had been made here.

    With Redis, processes also notify each other at once; the store is polled all the same, so that nothing depends on
    Redis. Each answer of the store renews the lease on what is cached of tokens. Where the store does not answer, that
    runs out; then all of it is forgotten until the store responds again.

    @ivar failures: How often the store did not answer.
    @ivar redis: Through which processes notify each other, if at all.
    """

    _log = Logger()

    def __init__(
        self,
        store: ChangingStore,
        clock: IReactorTime,
        *,
        redis: RedisClient | None = None,
        channel: str = "",
        interval: float = POLL_INTERVAL,
        lease: CacheLease | None = None,
    ) -> None:
        """
        @param redis: Of its own: it is started and stopped with this.
        @param lease: On what is cached; C{None}: one of L{MAX_SILENCE}.
        """
        MultiService.__init__(self)
        self.failures = 0
        self._store = store
        self._clock = clock
        self.redis = redis
        self._channel = channel
        self._lease = lease or CacheLease(MAX_SILENCE)
        self._epoch: int | None = None
        self._is_silent = False
        self._patience = Deadline(Deadlines(clock), self._fall_silent)
        self._polling = Loop("revocation", self.poll, interval, clock)
        if redis is not None:
            child: Any = redis
            child.setServiceParent(self)
            redis.subscribe(channel, self._on_message)
            store.on_commit(self._publish)

    def instruments(self) -> Iterator[Instrument]:
        yield Counter("store_silences", "Times the store did not say in time what has changed.", lambda: self.failures)
        if self.redis is not None:
            yield from self.redis.instruments("revocation")

    def health_checks(self) -> Iterator[HealthCheck]:
        yield HealthCheck("revocation_feed", lambda: self.state)

    @property
    def state(self) -> str:
        """C{ok}, or C{silent} where nobody can say what has changed elsewhere."""
        return "silent" if self._is_silent else "ok"

    @deferred
    async def open(self) -> None:
        """Begin, now that the store is open."""
        self._heard_now(self._clock.seconds())
        self._polling.start()

    def stopService(self) -> Any:
        self._polling.stop()
        self._patience.stop()
        return MultiService.stopService(self)

    @deferred
    async def poll(self) -> None:
        """Poll the store once; fails only with what nobody has foreseen."""
        asked_at = self._clock.seconds()
        try:
            changes = await within(POLL_TIMEOUT, self._clock, self._store.changes(self._epoch), StoreUnavailable())
        except ProxyError:
            self._poll_failed()
            return
        except Exception:
            self._poll_failed()
            raise
        self._heard_now(asked_at)
        self._epoch = changes.epoch
        for project_id in ("",) if changes.projects is None else changes.projects:
            self._store.announce(project_id)

    def _poll_failed(self) -> None:
        """Have all that is cached forgotten once this has been so for too long, whatever the reason is."""
        self.failures += 1
        if self._is_silent:
            self._store.announce("")

    def _heard_now(self, asked_at: float) -> None:
        """The store has said what there was at that time."""
        self._lease.renew(asked_at)
        self._patience.set(max(self._lease.until - self._clock.seconds(), 0.0))
        if self._is_silent:
            self._is_silent = False
            self._log.info("The store says again what has changed: what is cached of tokens is used again.")

    def _fall_silent(self) -> None:
        """For too long; again after as long, since a poll that fails for want of a reason is not made again at once."""
        if not self._is_silent:
            self._is_silent = True
            self._log.error(
                "The store has not said for {seconds:g} s what has changed: nothing that is cached of tokens is used "
                "for longer than that, since it may have been revoked elsewhere.",
                seconds=self._lease.seconds,
            )
        self._patience.set(self._lease.seconds)
        self._store.announce("")

    @property
    def tasks(self) -> list[Task]:
        """What goes on in the background."""
        return [self._polling, *(self.redis.tasks if self.redis is not None else ())]

    # Redis

    def _publish(self, project_id: str) -> None:
        """Notify the others; those who miss it will see it in the store."""
        if self.redis is not None:
            from llmproxy.redis import RedisUnavailable

            self.redis.publish(self._channel, project_id or ALL_PROJECTS).addErrback(
                lambda f: f.trap(RedisUnavailable) and None
            )

    def _on_message(self, payload: bytes) -> None:
        project_id = payload.decode("utf-8", "replace")
        if 0 < len(project_id) <= MAX_PROJECT_ID_CHARS:
            self._store.announce("" if project_id == ALL_PROJECTS else project_id)
