"""Keeps one connection to Redis, and makes a new one whenever it is lost."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from OpenSSL import SSL
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.logger import Logger

from llmproxy.base import tls as trust
from llmproxy.base.background import Task
from llmproxy.base.coroutines import deferred, within
from llmproxy.base.outage_log import OutageLog
from llmproxy.config.redis_url import RedisAddress
from llmproxy.redis.commands import RedisUnavailable, encode

if TYPE_CHECKING:
    from llmproxy.redis.connection import Message, RedisConnection

CONNECT_TIMEOUT = 3.0  # seconds for a connection to be made, name resolution and TLS included
GREETING_TIMEOUT = 1.0  # seconds for the server to let us in
FIRST_DELAY, MAX_DELAY = 0.1, 2.0  # seconds before the first and before any later attempt to connect
STEADY_SECONDS = 10.0  # seconds after which a connection that is lost was a good one: the next attempt is a first one


def endpoint(address: RedisAddress, reactor: Any, ca_file: str = "") -> IStreamClientEndpoint:
    """Where to connect; certificates are verified, or there is no connection."""
    if address.path:
        return UNIXClientEndpoint(reactor, address.path, timeout=CONNECT_TIMEOUT)
    plain = HostnameEndpoint(reactor, address.host, address.port, timeout=CONNECT_TIMEOUT)
    if not address.tls:
        return plain
    if ca_file:
        try:
            SSL.Context(SSL.TLS_METHOD).load_verify_locations(ca_file)
        except SSL.Error as e:
            raise ValueError(f"redis.ca_file: {ca_file} cannot be read as a PEM file of certificates.") from e
    return wrapClientTLS(trust.verify_provider(address.host, trust.trust_roots(ca_file), []), plain)


class ConnectionSupervisor(Service):
    """One connection, for as long as this service runs.

    Not Twisted's C{ClientService}: that one raises where a connection is lost while it is being prepared, as by a
    server that has too many clients. It does not say why an attempt failed, counts a server that lets us in and hangs
    up as a success, and waits for the peer when it stops.

    @ivar connection: The one that may be used now, or C{None}.
    @ivar task: How keeping it does.
    """

    _log = Logger()

    def __init__(
        self,
        where: IStreamClientEndpoint,
        address: RedisAddress,
        clock: IReactorTime,
        outages: OutageLog[str],
        *,
        random: Callable[[], float],
        messages: Message | None = None,
        prepare: Callable[[RedisConnection], Deferred[None]] | None = None,
        ended: Callable[[RedisConnection], object] = lambda connection: None,
    ) -> None:
        """
        @param random: From 0 to 1, so that not all who lost the server come back at once.
        @param messages: Called with what is published, where channels are subscribed to.
        @param prepare: What else is to be done before the connection may be used.
        @param ended: Called with every connection that was made, when it is not used any more.
        """
        self.connection: RedisConnection | None = None
        self._where = where
        self._address = address
        self._clock = clock
        self._outages = outages
        self._random = random
        self._messages = messages
        self._prepare = prepare
        self._ended = ended
        self._keeping: Deferred[None] | None = None
        self._latest: RedisConnection | None = None
        self.task = Task("redis", clock)

    def startService(self) -> None:
        Service.startService(self)
        self._keeping = Deferred.fromCoroutine(self._keep())
        self._keeping.addErrback(lambda f: self._log.failure("Keeping a connection to Redis failed.", f))

    @deferred
    async def stopService(self) -> None:
        Service.stopService(self)
        keeping, self._keeping = self._keeping, None
        if keeping is not None:
            keeping.cancel()
            await keeping
        if self._latest is not None:
            await self._latest.lost()

    async def _keep(self) -> None:
        attempt = 0
        try:
            while True:
                since = self._clock.seconds()
                reason = await self._used()
                if not self.running:  # endpoints do not all say CancelledError when they are cancelled
                    return
                self._outages.failed(reason)
                attempt = 0 if self._clock.seconds() - since > STEADY_SECONDS else attempt + 1
                await deferLater(self._clock, self._pause(attempt))
        except CancelledError:
            return

    async def _used(self) -> str:
        """As L{_use}, whatever happens there: to keep a connection is not given up for one error."""
        try:
            reason = await self._use()
        except CancelledError:
            raise
        except Exception as e:
            self.task.failed()
            return f"{type(e).__name__}: {e}"
        self.task.worked()
        return reason

    def _pause(self, attempt: int) -> float:
        return min(FIRST_DELAY * 2.0 ** min(attempt, 30), MAX_DELAY) * (0.5 + self._random() / 2)

    async def _use(self) -> str:
        """Connect, and stay until the connection has ended; why it has, or why there was none."""
        connection: RedisConnection | None = None
        try:
            self._latest = connection = await self._connected()
            await self._greet(connection)
            self.connection = connection
            self._outages.recovered()
            self.task.worked()
            return await connection.lost()
        except RedisUnavailable as e:
            return str(e)
        finally:
            self.connection = None
            if connection is not None:
                connection.abort("it is not used any more")
                self._ended(connection)

    async def _connected(self) -> RedisConnection:
        # Here, not above: txredisapi takes the global reactor when it is imported, before twistd has chosen one.
        from llmproxy.redis.connection import RedisConnection

        factory = Factory.forProtocol(partial(RedisConnection, self._clock, self._messages))
        factory.noisy = False
        late = RedisUnavailable(f"no connection within {CONNECT_TIMEOUT:g} s")
        try:
            connection: Any = await within(CONNECT_TIMEOUT, self._clock, self._where.connect(factory), late)
        except (RedisUnavailable, CancelledError):
            raise
        except Exception as e:  # as many kinds as there are endpoints
            raise RedisUnavailable(f"{type(e).__name__}: {e}") from e
        return connection  # type: ignore[no-any-return]

    async def _greet(self, connection: RedisConnection) -> None:
        """Be let in, and hear that the server is ready for work: while it loads its data it is not."""
        address = self._address
        commands: list[tuple[str | int, ...]] = []
        if address.password:
            commands.append(("AUTH", *([address.user] if address.user else []), address.password))
        if address.database:
            commands.append(("SELECT", address.database))
        replies = [await connection.send(encode(command), GREETING_TIMEOUT) for command in [*commands, ("PING",)]]
        if replies != [b"OK"] * len(commands) + [b"PONG"]:
            raise RedisUnavailable("it does not speak the protocol of Redis")
        if self._prepare is not None:
            await self._prepare(connection)
