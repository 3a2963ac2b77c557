"""Writes to a connection in the turn of the reactor in which it is told to."""

from __future__ import annotations

import socket
from typing import Any


def socket_of(transport: Any) -> socket.socket | None:
    """What can be written to directly; C{None} for TLS, and in tests."""
    handle = transport.getHandle() if hasattr(transport, "getHandle") else None
    return handle if isinstance(handle, socket.socket) else None


def write_at_once(transport: Any, handle: socket.socket | None, data: bytes) -> None:
    """Send at once where nothing waits to be sent; that spares a turn of the reactor and two system calls.

    The transport keeps what it could not send, and finds out by itself what is wrong with a connection.

    @param handle: The transport's L{socket_of}.
    """
    if handle is not None and not transport.dataBuffer and not transport._tempDataLen:
        try:
            data = data[handle.send(data) :]
        except OSError:
            pass
    if data:
        transport.write(data)
