"""The bounds of a server: how much, how many and how long."""

from __future__ import annotations

from dataclasses import dataclass, field

from llmproxy.wire.parser import MessageLimits


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """What a L{Site<llmproxy.wire.server.site.Site>} grants its clients.

    @ivar messages: The sizes of what a client may send.
    @ivar head_timeout: Seconds in all for a head, from its first byte or from the connection's beginning.
    @ivar body_timeout: Seconds within which a body must go on.
    @ivar keepalive_timeout: Seconds for the next request to begin. For all three, C{0} means no limit.
    @ivar send_timeout: Seconds for which a client may take less than C{min_send_rate} bytes a second of what waits for
        it; C{0}: no limit.
    @ivar min_send_rate: Bytes a second; see C{send_timeout}.
    @ivar max_connections: Beyond these a new one is closed at once.
    @ivar max_connections_per_address: Likewise from one address; C{0}: no limit.
    """

    messages: MessageLimits = field(default_factory=MessageLimits)
    head_timeout: float = 10.0
    body_timeout: float = 30.0
    keepalive_timeout: float = 75.0
    send_timeout: float = 60.0
    min_send_rate: int = 1024
    max_connections: int = 20_000
    max_connections_per_address: int = 0

    @property
    def min_sent_bytes(self) -> int:
        """Bytes that a client must take within C{send_timeout}."""
        return max(1, int(self.send_timeout * self.min_send_rate))
