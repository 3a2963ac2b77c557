"""The addresses that a provider's name stands for, looked up again before they are old.

Twisted's name resolver calls the system's, in threads; neither tells for how long a response holds. So each is used for
C{ttl} seconds, and while there are connections to the name it is looked up several times in that time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import IDelayedCall, IHostResolution, IResolutionReceiver
from zope.interface import implementer

LOOKUPS_PER_TTL = 3  # an address that two of them do not have is gone: many names stand for a part of theirs in turn


@implementer(IResolutionReceiver)
class _Lookup:
    """One question to the resolver."""

    def __init__(self, done: Callable[[list[Any]], object]) -> None:
        self._done = done
        self._found: list[Any] = []

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        """Nothing to do."""

    def addressResolved(self, address: Any) -> None:
        self._found.append(address)

    def resolutionComplete(self) -> None:
        self._done(self._found)


class HostAddresses:
    """What one name stands for.

    @ivar in_use: Tells whether there are connections to it, so that it is to be looked up in the background.
    @ivar on_change: Called with all hosts that the name stood for in the last two lookups, where one is in neither any
        more.
    """

    def __init__(self, reactor: Any, name: str, port: int, ttl: float) -> None:
        """
        @param ttl: For how many seconds addresses are used; C{0}: each connection has them looked up.
        """
        self._reactor = reactor
        self._name = name
        self._port = port
        self._ttl = ttl
        self._addresses: list[Any] = []
        self._good_until = 0.0
        self._last: frozenset[str] = frozenset()  # the hosts of the last lookup
        self._known: frozenset[str] = frozenset()  # of the last two
        self._waiting: list[Deferred[list[Any]]] = []
        self._asking = False
        self._next: IDelayedCall | None = None
        self._closed = False
        self.in_use: Callable[[], bool] = lambda: False
        self.on_change: Callable[[frozenset[str]], object] = lambda hosts: None

    def get(self) -> Deferred[list[Any]]:
        """Fire with C{IPv4Address} and C{IPv6Address} in the resolver's order; fail with C{DNSLookupError}.

        Where the name cannot be looked up any more, what it stood for last is used on.
        """
        if self._addresses and self._reactor.seconds() < self._good_until:
            self._ask_later()
            return succeed(self._addresses)
        waiting: Deferred[list[Any]] = Deferred()
        self._waiting.append(waiting)
        waiting.addErrback(self._left, waiting)
        self._ask()
        return waiting

    def expire(self) -> None:
        """None of the addresses could be reached: the next connection has them looked up."""
        self._good_until = 0.0

    def close(self) -> None:
        """Ask no more in the background."""
        self._closed = True
        if self._next is not None and self._next.active():
            self._next.cancel()

    def _left(self, reason: Any, waiting: Deferred[list[Any]]) -> Any:
        if waiting in self._waiting:  # cancelled: others go on waiting for the same response
            self._waiting.remove(waiting)
        return reason

    def _ask(self) -> None:
        if not self._asking:
            self._asking = True
            resolver = self._reactor.nameResolver
            resolver.resolveHostName(_Lookup(self._answered), self._name, portNumber=self._port)

    def _answered(self, found: list[Any]) -> None:
        self._asking = False
        if found:
            self._addresses = found
            self._good_until = self._reactor.seconds() + self._ttl
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if self._addresses:
                each.callback(self._addresses)
            else:
                each.errback(DNSLookupError("The name stands for no address."))
        if found and self._ttl:
            self._compare(frozenset(address.host for address in found))
        self._ask_later()

    def _compare(self, hosts: frozenset[str]) -> None:
        """What neither this lookup nor the one before has is gone."""
        known = hosts | self._last
        gone, self._known, self._last = self._known - known, known, hosts
        if gone:
            self.on_change(known)

    def _ask_later(self) -> None:
        if self._ttl and not self._closed and (self._next is None or not self._next.active()):
            self._next = self._reactor.callLater(self._ttl / LOOKUPS_PER_TTL, self._ask_again)

    def _ask_again(self) -> None:
        if self.in_use():
            self._ask()


def preferring(addresses: Sequence[Any], failed: Callable[[str], bool]) -> list[Any]:
    """In which order they are tried: the families in turn, beginning with the resolver's first (RFC 8305, section 4);
    those that have failed lately come last."""
    first = [address for address in addresses if type(address) is type(addresses[0])]
    second = [address for address in addresses if type(address) is not type(addresses[0])]
    mixed = [address for pair in zip(first, second, strict=False) for address in pair]
    shorter = min(len(first), len(second))
    mixed += first[shorter:] + second[shorter:]
    return sorted(mixed, key=lambda address: failed(address.host))
