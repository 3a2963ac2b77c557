"""Connects to a name by whichever of its addresses connects first (RFC 8305, "Happy Eyeballs")."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv6Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.interfaces import IDelayedCall, IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.python.failure import Failure
from zope.interface import implementer

from llmproxy.wire.client.host_addresses import HostAddresses, preferring

ATTEMPT_DELAY_SECONDS = 0.25  # until the next address is tried beside one that says nothing: RFC 8305, section 5
AVOIDED_SECONDS = 600.0  # for which an address that did not connect is tried after all others: RFC 8305, section 4
MAX_AVOIDED_ADDRESSES = 1000


@implementer(IStreamClientEndpoint)
class HostEndpoint:
    """As Twisted's C{HostnameEndpoint}; where an address refuses, the next is tried at once, and those that failed or
    said nothing come last for some time, so that a family that leads nowhere is waited for once."""

    def __init__(self, reactor: Any, addresses: HostAddresses, timeout: float | None) -> None:
        """
        @param timeout: Seconds for each attempt; C{None}: no limit.
        """
        self._reactor = reactor
        self._addresses = addresses
        self._timeout = timeout
        self._avoided: dict[str, float] = {}

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        found = preferring(await self._addresses.get(), self._is_avoided)
        attempts = [(address.host, self._endpoint(address)) for address in found]
        race = _Race(self._reactor, factory, attempts, self.avoid, self._avoided.pop)
        race.start()
        try:
            return await race.won
        except CancelledError:
            raise
        except Exception:
            self._addresses.expire()
            raise

    def avoid(self, host: str) -> None:
        """It did not connect, or not soon."""
        if len(self._avoided) >= MAX_AVOIDED_ADDRESSES:
            self._avoided.clear()
        self._avoided[host] = self._reactor.seconds() + AVOIDED_SECONDS

    def _is_avoided(self, host: str) -> bool:
        now: float = self._reactor.seconds()
        return self._avoided.get(host, now) > now

    def _endpoint(self, address: Any) -> IStreamClientEndpoint:
        kind: Any = TCP6ClientEndpoint if isinstance(address, IPv6Address) else TCP4ClientEndpoint
        endpoint: IStreamClientEndpoint = kind(self._reactor, address.host, address.port, self._timeout)
        return endpoint


class _Race:
    """Attempts to connect, one after the other and side by side; the first that succeeds ends all others.

    @ivar won: Fires with the winner's protocol, or fails as the last attempt has. Cancelled, it ends all.
    """

    def __init__(self, reactor: Any, factory: IProtocolFactory, attempts: Any, lost: Any, winner: Any) -> None:
        """
        @param attempts: Hosts with their endpoints; C{lost}: called with a host that another has beaten, or that has
            failed; C{winner}: with the one that connected, and C{None}.
        """
        self._reactor = reactor
        self._factory = factory
        self._left = list(attempts)
        self._lost = lost
        self._winner = winner
        self._running: dict[str, Deferred[IProtocol]] = {}
        self._timer: IDelayedCall | None = None
        self._over = False
        self.won: Deferred[IProtocol] = Deferred(lambda _: self._end())

    def start(self) -> None:
        """Begin with the next."""
        self._stop_timer()
        if self._over or not self._left:
            return
        host, endpoint = self._left.pop(0)
        if self._left:
            self._timer = self._reactor.callLater(ATTEMPT_DELAY_SECONDS, self.start)
        attempt = endpoint.connect(self._factory)
        self._running[host] = attempt
        attempt.addCallbacks(self._connected, self._failed, callbackArgs=(host,), errbackArgs=(host,))

    def _connected(self, protocol: IProtocol, host: str) -> None:
        self._running.pop(host, None)
        if self._over:
            protocol.transport.abortConnection()  # type: ignore[attr-defined]
            return
        self._winner(host, None)
        for slower in list(self._running):
            self._lost(slower)
        self._end()
        self.won.callback(protocol)

    def _failed(self, reason: Failure, host: str) -> None:
        self._running.pop(host, None)
        if self._over:
            return
        self._lost(host)
        if self._left:
            self.start()
        elif not self._running:
            self._over = True
            self.won.errback(reason)

    def _end(self) -> None:
        self._over = True
        self._stop_timer()
        running, self._running = self._running, {}
        for attempt in running.values():
            attempt.cancel()

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
