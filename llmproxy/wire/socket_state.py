"""Asks the kernel what the other side does: whether it has left, and what it has not taken yet."""

from __future__ import annotations

import fcntl
import select
import struct
import termios
from typing import Any

_FIN = getattr(select, "POLLRDHUP", 0)  # known on Linux only; elsewhere a reset is all that can be seen


def peer_closed(transport: Any, *, half: bool) -> bool:
    """Whether the other side has reset the connection or, with C{half}, has sent its end.

    Looks past bytes that have arrived and were not read. C{False} where it cannot be known.
    """
    fileno = getattr(transport, "fileno", None)
    descriptor = fileno() if fileno is not None else -1
    if descriptor < 0:
        return False
    poll = select.poll()
    poll.register(descriptor, _FIN if half else 0)
    return bool(poll.poll(0))


def unacknowledged_bytes(transport: Any) -> int:
    """Bytes that were written and that the other side has not taken: ours, and those in the system's socket.

    Where the system does not tell, only ours are known.
    """
    ours = len(getattr(transport, "dataBuffer", b"")) - getattr(transport, "offset", 0)
    return int(ours) + int(getattr(transport, "_tempDataLen", 0)) + _in_socket(transport)


def buffered(transport: Any) -> int:
    """Bytes that were written and are still in this process, a TLS layer's included."""
    ours = len(getattr(transport, "dataBuffer", b"")) - getattr(transport, "offset", 0)
    ours += getattr(transport, "_tempDataLen", 0) + sum(map(len, getattr(transport, "_appSendBuffer", ())))
    below = getattr(transport, "transport", None)
    return int(ours) + (buffered(below) if below is not None else 0)


def _in_socket(transport: Any) -> int:
    fileno = getattr(transport, "fileno", None)
    descriptor = fileno() if fileno is not None else -1
    if descriptor < 0:
        return 0
    try:
        (count,) = struct.unpack("i", fcntl.ioctl(descriptor, termios.TIOCOUTQ, b"\0\0\0\0"))
    except OSError:
        return 0
    return int(count)
