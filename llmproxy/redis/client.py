"""Redis for whoever needs it: a few connections, and a guard in front of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import random
from typing import TYPE_CHECKING, Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from llmproxy.base.background import Task
from llmproxy.base.outage_log import OutageLog
from llmproxy.config import model
from llmproxy.config.redis_url import RedisAddress, parse_redis_url
from llmproxy.instruments import Counter, Gauge, Instrument
from llmproxy.redis.commands import Argument, RedisRefused, RedisUnavailable, Script, encode
from llmproxy.redis.subscription import Subscription
from llmproxy.redis.supervisor import ConnectionSupervisor, endpoint

if TYPE_CHECKING:
    from llmproxy.redis.connection import RedisConnection

COMMAND_TIMEOUT = 0.05

_log = Logger()


class RedisClient(MultiService):
    """Sends commands, and fails within their time where no reply can be had; nobody waits for Redis to come back.

    Never retries: a command whose reply is missing may have been done, which only its caller can judge.

    @ivar refused: Commands that were not sent because too many, or too many bytes, had no reply yet.
    """

    def __init__(
        self,
        where: IStreamClientEndpoint,
        address: RedisAddress,
        clock: IReactorTime,
        *,
        random: Callable[[], float],
        timeout: float = COMMAND_TIMEOUT,
        connections: int = 2,
        ordered: bool = False,
        unanswered: int = 10_000,
        unanswered_bytes: int = 64 * 1024 * 1024,
        use: str = "",
        prepare: Callable[[RedisConnection], Deferred[None]] | None = None,
    ) -> None:
        """
        @param use: What it is used for, as the log says it.
        @param prepare: What else is to be done before a connection may be used.
        @param timeout: Seconds that a command may take, where it does not say otherwise.
        @param connections: How many to keep; a large value under way holds up what is behind it on the same one.
        @param ordered: Whether commands are run in their order: they take the same connection as long as that is ready.
        @param unanswered: How many commands may be without a reply at once.
        """
        MultiService.__init__(self)
        self.refused = 0
        self._timeout = timeout
        self._outages = outages = _outages(str(address), clock, use)
        self._ordered = ordered
        self._limit = unanswered
        self._limit_bytes = unanswered_bytes
        self._timeouts = 0
        self._supervisors = [
            ConnectionSupervisor(where, address, clock, outages, random=random, prepare=prepare, ended=self._ended)
            for _ in range(connections)
        ]
        self._subscription = Subscription(where, address, clock, outages, random=random)
        for supervisor in self._supervisors:
            supervisor.setServiceParent(self)  # type: ignore[no-untyped-call]

    @property
    def tasks(self) -> list[Task]:
        """What goes on in the background."""
        return [*(supervisor.task for supervisor in self._supervisors), *self._subscription.tasks]

    @property
    def available(self) -> bool:
        """Whether a command would be sent now."""
        for supervisor in self._supervisors:  # asked for each request: a generator would cost several calls
            connection = supervisor.connection
            if connection is not None and connection.ready:
                return True
        return False

    @property
    def errors(self) -> int:
        """Commands that failed although they could be sent, and connections that failed."""
        return self._outages.failures

    @property
    def timeouts(self) -> int:
        """Commands whose reply was late; they are among the errors."""
        return self._timeouts + sum(
            supervisor.connection.timeouts for supervisor in self._supervisors if supervisor.connection is not None
        )

    def instruments(self, use: str) -> Iterator[Instrument]:
        """Its figures, for whoever uses it.

        @param use: The value of their label C{use}.
        """
        yield Gauge(
            "redis_available", "1 while commands are sent to Redis.", lambda: {use: float(self.available)}, "use", "min"
        )
        yield Counter("redis_errors", "Commands and connections that failed.", lambda: {use: self.errors}, "use")
        yield Counter("redis_timeouts", "Commands whose reply was late.", lambda: {use: self.timeouts}, "use")
        yield Counter("redis_refused", "Commands not sent: too many waited.", lambda: {use: self.refused}, "use")

    def call(self, *command: Argument, timeout: float = 0.0, receive_timeout: float = 0.0) -> Deferred[Any]:
        """Fire with the reply: bytes, int, C{None}, or a list of these.

        Fail with L{RedisRefused} where the reply is an error, and with L{RedisUnavailable} at once where there is no
        connection or too much is under way, else after C{timeout} seconds at the latest.

        @param timeout: 0 means the usual one, which is C{redis.timeout} in the settings.
        @param receive_timeout: Seconds that are added while the reply is arriving: a large one takes its time.
        """
        connection: RedisConnection | None = None
        count = size = 0
        for supervisor in self._supervisors:
            candidate = supervisor.connection
            if candidate is not None:
                count += candidate.unanswered
                size += candidate.load
                if candidate.ready and (connection is None or (not self._ordered and candidate.load < connection.load)):
                    connection = candidate
        if connection is None:
            return fail(RedisUnavailable("There is no connection to Redis."))
        sent = encode(command)
        if count >= self._limit or size + len(sent) > self._limit_bytes:
            self.refused += 1
            self._outages.failed("too many commands wait for it already", 0)
            return fail(RedisUnavailable("Too many commands wait for Redis already."))
        return connection.send(sent, timeout or self._timeout, receive_timeout).addErrback(self._failed)

    def script(
        self, script: Script, keys: Sequence[str | bytes], arguments: Sequence[Argument] = (), timeout: float = 0.0
    ) -> Deferred[Any]:
        """As L{call}, with the reply of a script; it is sent whole only to a server that does not know it yet."""
        rest = (len(keys), *keys, *arguments)
        return self.call(b"EVALSHA", script.digest, *rest, timeout=timeout).addErrback(
            self._unknown, script, rest, timeout
        )

    def publish(self, channel: str, payload: bytes | str, timeout: float = 0.0) -> Deferred[int]:
        """Fire with how many connections have got it."""
        return self.call(b"PUBLISH", channel, payload, timeout=timeout)

    def subscribe(
        self, channel: str, listener: Callable[[bytes], object], missed: Callable[[], object] = lambda: None
    ) -> None:
        """Call C{listener(payload)} for everything that is published there while this service runs.

        What is published while the connection is lost is lost: C{missed()} is called once listening has begun, and each
        time it has begun again.
        """
        if self._subscription.parent is None:
            self._subscription.setServiceParent(self)  # type: ignore[no-untyped-call]
        self._subscription.add(channel, listener, missed)

    @property
    def listening(self) -> bool:
        """Whether what is published is heard now."""
        return self._subscription.listening

    def drop(self, reason: str) -> None:
        """End the connections; new ones are made as if they had been lost."""
        for supervisor in self._supervisors:
            if supervisor.connection is not None:
                supervisor.connection.abort(reason)

    def _ended(self, connection: RedisConnection) -> None:
        self._timeouts += connection.timeouts

    def _failed(self, failure: Failure) -> Failure:
        error = failure.value
        if isinstance(error, RedisUnavailable) and not (isinstance(error, RedisRefused) and error.code == "NOSCRIPT"):
            self._outages.failed(f"it answered {error}" if isinstance(error, RedisRefused) else str(error))
        return failure

    def _unknown(self, failure: Failure, script: Script, rest: tuple[Argument, ...], timeout: float) -> Any:
        error = failure.value
        if isinstance(error, RedisRefused) and error.code == "NOSCRIPT":
            return self.call(b"EVAL", script.source, *rest, timeout=timeout)
        return failure


def connect(
    settings: model.Redis,
    reactor: Any,
    random: Callable[[], float] = random,
    *,
    url: str = "",
    connections: int = 2,
    ordered: bool = False,
    use: str = "",
    prepare: Callable[[RedisConnection], Deferred[None]] | None = None,
) -> RedisClient:
    """One that the settings name; nothing is connected before it is started.

    Who uses Redis for one thing has one of his own, so that large values never hold up small ones of another kind.
    L{ValueError} where C{ca_file} cannot be read.

    @param url: Of a server of its own, where this use has one; C{""} for that of the settings.
    @param ordered: As of a L{RedisClient}.
    """
    address = parse_redis_url(url or settings.url)
    where = endpoint(address, reactor, settings.ca_file)
    return RedisClient(
        where,
        address,
        reactor,
        random=random,
        timeout=settings.timeout,
        connections=connections,
        ordered=ordered,
        use=use,
        prepare=prepare,
    )


def _outages(where: str, clock: IReactorTime, use: str) -> OutageLog[str]:
    """Says that the server is away, and that it is back.

    @param where: The server, without a secret.
    """
    suffix = f" for {use}" if use else ""

    def report(reason: str, count: int) -> None:
        _log.warn(
            "Redis at {where} cannot be used{use}: {reason}. Going on without it. {errors} errors so far.",
            where=where,
            use=suffix,
            reason=reason.rstrip("."),
            errors=outages.failures,
        )

    def recovery() -> None:
        _log.info("Redis at {where} can be used{use} again.", where=where, use=suffix)

    outages = OutageLog(clock, report, on_recovery=recovery)
    return outages
