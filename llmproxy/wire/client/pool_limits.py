"""What pools of connections may hold."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """What a pool may hold, and for how long. Seconds; C{0} means no limit there.

    @ivar connect: For a connection to be there, name look-up and TLS included; and for a place in the queue.
    @ivar idle: How long an unused connection is kept at most, see L{IdleLifetime}.
    @ivar age: How old a connection may be and still be used again.
    @ivar conns: Connections at a time; C{waiting}: requests that wait while all of them are busy.
    @ivar kept: Unused connections that are kept.
    """

    connect: float = 10.0
    idle: float = 90.0
    age: float = 3600.0
    conns: int = 1000
    kept: int = 20
    waiting: int = 1000


class IdleBudget:
    """How many unused connections all pools together may keep.

    @ivar taken: How many they do.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0
