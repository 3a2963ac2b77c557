"""What a connection to a provider is at."""

from __future__ import annotations

from enum import Enum, auto


class ConnectionState(Enum):
    """Opening, unused, waiting for a head, reading a body, or gone."""

    OPENING = auto()
    IDLE = auto()
    HEAD = auto()
    BODY = auto()
    CLOSED = auto()
