"""Listens to what is published, over a connection of its own that is looked after."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.application.service import MultiService
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.logger import Logger

from llmproxy.base.background import Loop, Task
from llmproxy.base.coroutines import deferred
from llmproxy.base.outage_log import OutageLog
from llmproxy.config.redis_url import RedisAddress
from llmproxy.redis.commands import RedisUnavailable, encode
from llmproxy.redis.supervisor import GREETING_TIMEOUT, ConnectionSupervisor

if TYPE_CHECKING:
    from llmproxy.redis.connection import RedisConnection

PING_INTERVAL = 1.0  # seconds between looks whether the server is still there, and for its response


class Subscription(MultiService):
    """Subscribes again whenever the connection is made again."""

    _log = Logger()

    def __init__(
        self,
        where: IStreamClientEndpoint,
        address: RedisAddress,
        clock: IReactorTime,
        outages: OutageLog[str],
        *,
        random: Callable[[], float],
    ) -> None:
        MultiService.__init__(self)
        self._listeners: dict[bytes, list[tuple[Callable[[bytes], object], Callable[[], object]]]] = {}
        self._supervisor = ConnectionSupervisor(
            where, address, clock, outages, random=random, messages=self._message, prepare=self._prepare
        )
        self._supervisor.setServiceParent(self)  # type: ignore[no-untyped-call]
        self._pinging = Loop("redis", self._ping, PING_INTERVAL, clock)

    def startService(self) -> None:
        MultiService.startService(self)
        self._pinging.start()

    @deferred
    async def stopService(self) -> None:
        self._pinging.stop()
        stopped: Any = MultiService.stopService(self)
        if stopped is not None:
            await stopped

    @property
    def tasks(self) -> list[Task]:
        return [self._pinging, self._supervisor.task]

    @property
    def listening(self) -> bool:
        connection = self._supervisor.connection
        return connection is not None and connection.ready

    def add(self, channel: str, listener: Callable[[bytes], object], missed: Callable[[], object]) -> None:
        """Takes effect at once, or when there is a connection."""
        name = channel.encode()
        self._listeners.setdefault(name, []).append((listener, missed))
        connection = self._supervisor.connection
        if connection is not None:
            self._subscribe(connection, name).addCallbacks(
                lambda _: self._tell(missed), lambda failure: connection.abort(failure.getErrorMessage())
            )

    @deferred
    async def _prepare(self, connection: RedisConnection) -> None:
        begun: set[bytes] = set()
        while waiting := self._listeners.keys() - begun:  # more may come meanwhile
            for channel in waiting:
                await self._subscribe(connection, channel)
            begun |= waiting
        for listeners in tuple(self._listeners.values()):
            for _, missed in tuple(listeners):
                self._tell(missed)

    @deferred
    async def _subscribe(self, connection: RedisConnection, channel: bytes) -> None:
        reply = await connection.send(encode((b"SUBSCRIBE", channel)), GREETING_TIMEOUT)
        if not isinstance(reply, list) or reply[:2] != [b"subscribe", channel]:
            raise RedisUnavailable("it did not subscribe to what it was told")

    def _message(self, channel: bytes, payload: bytes) -> None:
        for listener, _ in self._listeners.get(channel, ()):
            self._tell(listener, payload)

    @deferred
    async def _ping(self) -> None:
        """A server that is gone without a word would otherwise be listened to for ever."""
        connection = self._supervisor.connection
        if connection is None:
            return
        try:
            await connection.send(encode((b"PING",)), PING_INTERVAL)
        except RedisUnavailable as e:
            connection.abort(str(e))

    def _tell(self, listener: Callable[..., object], *arguments: bytes) -> None:
        try:
            listener(*arguments)
        except Exception:
            self._log.failure("A listener to Redis failed.")
