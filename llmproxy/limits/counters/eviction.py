"""Limits are counted only on a Redis that keeps them.

"Key eviction" (redis.io): once C{maxmemory} is reached, every C{maxmemory-policy} but C{noeviction} drops keys, the
C{volatile-} ones such as have a time to live; C{maxmemory 0} is no limit. All databases of a server share both. They
are read from C{INFO memory}, which managed servers allow where they forbid C{CONFIG}.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from llmproxy.base.coroutines import deferred, within
from llmproxy.errors import LimitsUnavailable
from llmproxy.redis import RedisRefused, RedisUnavailable
from llmproxy.redis.commands import encode
from llmproxy.store.errors import StartupError

if TYPE_CHECKING:
    from llmproxy.redis.connection import RedisConnection

INFO_MEMORY = (b"INFO", b"memory")  # the command whose reply L{evicting_policy} reads
INSPECT_SECONDS = 1.0  # for the server to say how it evicts
START_SECONDS = 1.0  # that the start waits for a server to be there; Redis is never a condition


def evicting_policy(info: bytes) -> str:
    """The policy by which this server evicts; C{""} where it does not, or does not say.

    @param info: Its reply to L{INFO_MEMORY}.
    """
    fields = dict(line.split(":", 1) for line in info.decode("ascii", "replace").split() if ":" in line)
    policy = fields.get("maxmemory_policy", "noeviction")
    return "" if policy == "noeviction" or fields.get("maxmemory") == "0" else policy


class EvictionGuard:
    """Looks at each connection before it is used, and now and then at the server.

    @ivar refusal: Why the server must not be used; C{""} where it may be, or was not seen yet.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime, *, allowed: bool) -> None:
        """
        @param allowed: Whether a server that evicts is used all the same.
        """
        self.refusal = ""
        self._clock = clock
        self._allowed = allowed
        self._policy = ""
        self._first: Deferred[None] = Deferred()

    @deferred
    async def prepare(self, connection: RedisConnection) -> None:
        """Ask over a new connection; L{RedisUnavailable} where it must not be used."""
        try:
            info: bytes = await connection.send(encode(INFO_MEMORY), INSPECT_SECONDS)
        except RedisRefused as e:
            self._log.warn("Redis does not say whether it may evict limits: {error}", error=str(e))
            info = b""
        try:
            self.judge(info)
        finally:
            if not self._first.called:
                self._first.callback(None)

    def judge(self, info: bytes) -> None:
        """L{RedisUnavailable} where a server that says this of its memory must not be used."""
        policy, before = evicting_policy(info), self._policy
        self._policy, self.refusal = policy, ""
        if not policy:
            return
        if self._allowed:
            if policy != before:
                self._log.warn(
                    "Redis may evict limits ({policy}); limits.allow_eviction has it used all the same.", policy=policy
                )
            return
        self.refusal = f"it may evict limits (maxmemory-policy {policy})"
        if policy != before:
            self._log.error("Redis is not used for limits: {reason}.", reason=self.refusal)
        raise RedisUnavailable(self.refusal)

    @deferred
    async def open(self) -> None:
        """Wait a moment for the first look; L{StartupError} where the server must not be used."""
        try:
            await within(START_SECONDS, self._clock, self._first, LimitsUnavailable())
        except LimitsUnavailable:
            return  # when it comes it is looked at all the same
        if self.refusal:
            raise StartupError(
                f"limits.backend is redis, and this server must not count limits: {self.refusal}. Give limits a server "
                "of their own with maxmemory-policy noeviction (limits.redis_url), or set limits.allow_eviction."
            )
