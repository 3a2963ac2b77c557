"""The open connections of a server: counted, bounded, and closed together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Protocol

from twisted.internet.defer import Deferred, succeed


class ClientConnection(Protocol):
    """What L{ConnectionRegistry} needs of a connection.

    @ivar remote: The address of the peer.
    """

    remote: str

    def drain(self, *, spare_idle: bool = False) -> None:
        """Let the present request be the last; close now if there is none, and none has just arrived.

        @param spare_idle: Whether it may wait for one more request instead.
        """

    def close_idle(self) -> None:
        """Close if no request is in flight."""

    def abortConnection(self) -> None:
        """Close at once, without sending what waits."""


class ConnectionRegistry:
    """Knows all open connections, and how many there are of each address.

    @ivar draining: Whether connections end with the request that they are at.
    """

    def __init__(self, max_connections: int, max_per_address: int, is_shared: Callable[[str], bool]) -> None:
        """
        @param max_per_address: C{0}: no limit.
        @param is_shared: Tells of an address whether many clients are behind it, so that C{max_per_address} is not for
            it.
        """
        self.draining = False
        self._max = max_connections
        self._max_per_address = max_per_address
        self._is_shared = is_shared
        self._connections: set[ClientConnection] = set()
        self._by_address: Counter[str] = Counter()
        self._emptied: list[Deferred[None]] = []

    def __len__(self) -> int:
        return len(self._connections)

    @property
    def by_address(self) -> Mapping[str, int]:
        """How many are open from each address; without those from which none is."""
        return dict(self._by_address)

    def accepts(self, address: str) -> bool:
        """Whether there may be one more."""
        if len(self._connections) >= self._max:
            return False
        return not 0 < self._max_per_address <= self._by_address[address] or self._is_shared(address)

    def add(self, connection: ClientConnection) -> None:
        """It is open."""
        self._connections.add(connection)
        self._by_address[connection.remote] += 1

    def remove(self, connection: ClientConnection) -> None:
        """It is lost."""
        self._connections.discard(connection)
        self._by_address[connection.remote] -= 1
        if not self._by_address[connection.remote]:
            del self._by_address[connection.remote]
        if not self._connections:
            emptied, self._emptied = self._emptied, []
            for d in emptied:
                d.callback(None)

    def drain(self, *, spare_idle: bool = False) -> Deferred[None]:
        """Close idle connections, let busy ones finish; fire when there are none.

        @param spare_idle: Whether idle ones may stay for one more request, whose response says that it is the last.
        """
        self.draining = True
        for connection in list(self._connections):
            connection.drain(spare_idle=spare_idle)
        if not self._connections:
            return succeed(None)
        emptied: Deferred[None] = Deferred()
        self._emptied.append(emptied)
        return emptied

    def close_idle(self) -> None:
        """Close connections on which no request is in flight: their descriptors are needed."""
        for connection in list(self._connections):
            connection.close_idle()

    def abort(self) -> None:
        """Abort all connections, whatever they are at."""
        for connection in list(self._connections):
            connection.abortConnection()
