"""The connections to one origin: lent to one request at a time, kept for the next, bounded in number."""

from __future__ import annotations

from math import inf
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.error import DNSLookupError, TCPTimedOutError
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.interfaces import IDelayedCall, IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from llmproxy import errors
from llmproxy.base.coroutines import within
from llmproxy.base.fair_queue import FairQueue
from llmproxy.wire.client.connect_endpoint import ProxyFailed
from llmproxy.wire.client.connection import Connection
from llmproxy.wire.client.idle_lifetime import IdleLifetime
from llmproxy.wire.client.pending_request import PendingRequest
from llmproxy.wire.client.pool_limits import IdleBudget, PoolLimits
from llmproxy.wire.client.response_heads import ResponseHeads
from llmproxy.wire.descriptors import Descriptors
from llmproxy.wire.parser import MessageLimits
from llmproxy.wire.write_coalescing import WriteCoalescer

BUSY_RETRY_AFTER = 1.0  # seconds; when a connection becomes free is not known, and clients add their own backoff


class QueuedRequest:
    """A request's place in the queue.

    @param now: When it took it.
    """

    def __init__(self, pool: Pool, request: PendingRequest, timer: IDelayedCall | None, now: float) -> None:
        self._pool = pool
        self._timer = timer
        self._since = now
        self.request = request

    def leave(self, now: float) -> PendingRequest:
        self.request.queue_time = now - self._since
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        return self.request

    def cancel(self) -> None:
        self._pool.withdraw(self)


class Pool:
    """Sends requests over as few connections as it can; where all are busy, projects take turns.

    @ivar lifetime: For how long its unused connections are used again.
    @ivar repeated: Requests that were sent again on a fresh connection, as the provider had closed theirs.
    """

    def __init__(
        self,
        endpoint: IStreamClientEndpoint,
        clock: IReactorTime,
        pool_limits: PoolLimits,
        idle_budget: IdleBudget,
        limits: MessageLimits,
        *,
        secure: bool,
        coalescer: WriteCoalescer | None = None,
        descriptors: Descriptors | None = None,
    ) -> None:
        """
        @param descriptors: Asked before a connection is made whether there is one left for it.
        @param secure: Whether the endpoint speaks TLS; then a connection counts only after the handshake.
        @param coalescer: See L{Connection}.
        """
        self._endpoint = endpoint
        self._clock = clock
        self._seconds = clock.seconds
        self._pool_limits = pool_limits
        self._idle_budget = idle_budget
        self._limits = limits
        self.lifetime = IdleLifetime(pool_limits.idle)
        self.repeated = 0
        self._heads = ResponseHeads(limits, self.lifetime.on_stated)
        self._secure = secure
        self._coalescer = coalescer
        self._descriptors = descriptors
        self._factory = Factory.forProtocol(self._make)
        self._factory.noisy = False
        self._idle: list[Connection] = []  # the longest unused first
        self._witness: Connection | None = None  # past its lifetime, kept to see when the provider closes it
        self._usable: set[Connection] = set()
        self._sockets: set[Connection] = set()  # those on their way out included
        self._queue: FairQueue[str, QueuedRequest] = FairQueue()
        self._dialing = 0
        self._serving = False
        self._sweeping: IDelayedCall | None = None
        self._closed: Deferred[None] | None = None

    @property
    def idle(self) -> int:
        """How many connections wait to be used."""
        return len(self._idle) + len(self._witnesses)

    @property
    def has_room(self) -> bool:
        """Whether another connection may be made, so that no request has to queue."""
        return self._closed is None and len(self._usable) + self._dialing < self._pool_limits.conns

    def sends_at_once(self) -> bool:
        """Whether a request would not queue: there is a connection for it, or one would be made."""
        return not self._queue.owners and self._closed is None and (bool(self._idle) or self.has_room)

    @property
    def waiting(self) -> int:
        """How many requests wait for a connection."""
        return len(self._queue)

    @property
    def open(self) -> int:
        """How many connections there are, those included that are being made or closed."""
        return len(self._sockets) + self._dialing

    def send(self, request: PendingRequest) -> None:
        """Send it as soon as there is a connection; how it goes on, its own Deferred tells."""
        connection = self.take()
        if connection is not None:
            connection.send(request)
        elif self._closed is not None:
            request.fail(errors.Draining())
        elif self.has_room:
            self._dial(request)
        elif len(self._queue) < self._pool_limits.waiting or self._make_room(request):
            self._enqueue(request)
        else:
            request.fail(errors.UpstreamBusy(retry_after=BUSY_RETRY_AFTER))

    def close(self) -> Deferred[None]:
        """Close what is not in use at once, the rest after its response; fire when no connection is left. Cancelled, it
        waits for no response."""
        if self._closed is None:
            self._closed = Deferred()
            while self._queue.owners:
                self._queue.pop().leave(self._clock.seconds()).fail(errors.Draining())
            for connection in [*self._idle, *self._witnesses]:
                connection.close()
            self._stop_sweeping()
            self._check_closed()
        waiting: Deferred[None] = Deferred(self._abort)
        self._closed.addCallback(waiting.callback)
        return waiting

    def _abort(self, closing: Deferred[None]) -> None:
        for connection in list(self._sockets):
            connection.abort()

    # What its connections call

    def on_idle(self, connection: Connection) -> None:
        seconds, limits, budget = self._seconds, self._pool_limits, self._idle_budget
        now = seconds()
        old = connection.since + limits.age if limits.age else inf
        if self._closed is not None or now >= old:
            connection.close()
        elif self._queue.owners:
            if connection.quiet():
                connection.send(self._queue.pop().leave(now))
            else:
                connection.close()
        elif len(self._idle) < limits.kept and budget.taken < budget.limit:
            budget.taken += 1
            connection.idle_since = now
            until = now + self.lifetime.limit
            connection.good_until = until if until < old else old
            self._idle.append(connection)
            if self._sweeping is None:
                self._sweep_later(now)
        else:
            connection.close()

    def on_unusable(self, connection: Connection) -> None:
        if connection in self._usable:
            self._usable.discard(connection)
            if connection in self._idle:
                self._idle.remove(connection)
                self._idle_budget.taken -= 1
            elif connection is self._witness:
                self._witness = None
                self._idle_budget.taken -= 1
            self._serve()

    def on_closed(self, connection: Connection) -> None:
        self._sockets.discard(connection)
        self._check_closed()

    def on_given_up(self, connection: Connection) -> None:
        if connection.idle_since >= 0:
            self.lifetime.on_closed(connection.idle_since, self._clock.seconds())

    def repeat(self, request: PendingRequest) -> None:
        self.repeated += 1
        self._dial(request)

    def keep_only(self, hosts: frozenset[str]) -> None:
        """Connections to other addresses than these are not used again: closed now, or after their response."""
        for connection in [c for c in self._usable if getattr(c.transport.getPeer(), "host", "") not in hosts]:
            connection.since = -inf
            if connection in self._idle or connection is self._witness:
                connection.close()

    # Connections at hand

    def take(self) -> Connection | None:
        """One that waits to be used and is provably clean: the last one put aside, it is the likeliest to live."""
        seconds, idle = self._seconds, self._idle
        now = seconds()
        while idle:
            connection = idle.pop()
            self._idle_budget.taken -= 1
            if now < connection.good_until:
                if connection.quiet():
                    return connection
                self.on_given_up(connection)
            connection.close()
        return None

    def _sweep_later(self, now: float) -> None:
        """One timer for all: a request touches none."""
        unused = [*self._idle, *self._witnesses]
        if unused and (first := min(c.good_until for c in unused)) < inf:
            self._sweeping = self._clock.callLater(max(first - now, 0.0), self._sweep)

    def _sweep(self) -> None:
        self._sweeping = None
        now = self._clock.seconds()
        for connection in [c for c in [*self._witnesses, *self._idle] if now >= c.good_until]:
            if connection is self._witness:
                self.lifetime.refute()
            elif self._keeps_as_witness(connection, now):
                continue
            connection.close()
        self._sweep_later(now)

    def _keeps_as_witness(self, connection: Connection, now: float) -> bool:
        """One connection that is not used any more stays, where the provider's patience was learned: its close confirms
        what was learned, and its staying refutes it."""
        until = connection.idle_since + self.lifetime.refuted_after
        if self._witness is not None or until == inf or now >= until or connection not in self._idle:
            return False
        self._idle.remove(connection)
        self._witness, connection.good_until = connection, until
        return True

    @property
    def _witnesses(self) -> tuple[Connection, ...]:
        return () if self._witness is None else (self._witness,)

    def _stop_sweeping(self) -> None:
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None

    # New ones

    def _dial(self, request: PendingRequest) -> None:
        self._dialing += 1
        dialing = Deferred.fromCoroutine(
            within(
                self._pool_limits.connect,
                self._clock,
                Deferred.fromCoroutine(self._connect()),
                errors.UpstreamTimeout("No connection to the provider could be made in time."),
            )
        )
        request.holder = dialing
        dialing.addCallbacks(self._connected, self._unconnected, callbackArgs=(request,), errbackArgs=(request,))

    async def _connect(self) -> Connection:
        descriptors = self._descriptors
        if descriptors is not None and not descriptors.enough_for_provider():
            raise errors.DescriptorsExhausted(retry_after=1.0)
        try:
            connection: Any = await self._endpoint.connect(self._factory)
            opened: Connection = await connection.opened
            return opened
        except CancelledError:
            raise
        except Exception as e:
            if descriptors is not None and descriptors.none_left():  # whatever the look-up of a name makes of that
                raise errors.DescriptorsExhausted(retry_after=1.0) from e
            raise unconnected(e, secure=self._secure) from e

    def _make(self) -> Connection:
        connection = Connection(
            self, self._clock, self._limits, secure=self._secure, coalescer=self._coalescer, heads=self._heads
        )
        self._sockets.add(connection)
        return connection

    def _connected(self, connection: Connection, request: PendingRequest) -> None:
        self._dialing -= 1
        self._usable.add(connection)
        connection.send(request)

    def _unconnected(self, reason: Failure, request: PendingRequest) -> None:
        self._dialing -= 1
        request.fail(reason.value or reason)
        self._serve()
        self._check_closed()

    # The queue

    def _enqueue(self, request: PendingRequest) -> None:
        seconds = self._pool_limits.connect
        timer = self._clock.callLater(seconds, self._too_late, request) if seconds else None
        queued = QueuedRequest(self, request, timer, self._clock.seconds())
        request.holder = queued
        self._queue.push(request.project, queued)

    def _make_room(self, request: PendingRequest) -> bool:
        """Where the queue is full, the project that has most in it gives way to those that have less."""
        queued = self._queue.newest_of_the_longest(request.project) if self._pool_limits.waiting else None
        if queued is None:
            return False
        self.withdraw(queued)
        queued.request.fail(errors.UpstreamBusy(retry_after=BUSY_RETRY_AFTER))
        return True

    def _too_late(self, request: PendingRequest) -> None:
        queued = request.holder
        assert isinstance(queued, QueuedRequest)
        self.withdraw(queued)
        request.fail(
            errors.UpstreamBusy("No connection to the provider became free in time.", retry_after=BUSY_RETRY_AFTER)
        )

    def withdraw(self, queued: QueuedRequest) -> None:
        """The request in this place gives up waiting."""
        queued.leave(self._clock.seconds())
        self._queue.remove(queued.request.project, queued)

    def _serve(self) -> None:
        """Dial for those who wait. Flat: an endpoint that fails at once calls this from within."""
        if self._serving:
            return
        self._serving = True
        try:
            while self._queue.owners and self.has_room:
                self._dial(self._queue.pop().leave(self._clock.seconds()))
        finally:
            self._serving = False

    def _check_closed(self) -> None:
        if self._closed is not None and not self._closed.called and not self._sockets and not self._dialing:
            self._closed.callback(None)


def unconnected(error: BaseException, *, secure: bool) -> errors.UpstreamFailure:
    """Say why there is no connection."""
    if isinstance(error, ProxyFailed):
        return errors.UpstreamUnreachable(str(error))
    if isinstance(error, ConnectTimeout | TCPTimedOutError):
        return errors.UpstreamTimeout("No connection to the provider could be made in time.")
    if isinstance(error, DNSLookupError):
        return errors.UpstreamUnreachable("The provider's name could not be resolved.")
    if isinstance(error, Refused):
        return errors.UpstreamUnreachable("The provider refused the connection.")
    if secure:
        return errors.UpstreamUnreachable("No trusted TLS connection to the provider could be made.")
    return errors.UpstreamUnreachable()
