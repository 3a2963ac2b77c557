"""Asks the kernel what the other side does: whether it has left, and what it has not acknowledged yet."""

from __future__ import annotations

import fcntl
import select
import socket
import struct
import termios
from collections.abc import Callable
from typing import Any

from twisted.python.failure import Failure

# In Linux's struct tcp_info (include/uapi/linux/tcp.h): tcpi_bytes_acked, of all that was ever sent.
_TCP_INFO, _ACKNOWLEDGED, _TCP_INFO_BYTES = getattr(socket, "TCP_INFO", 0), struct.Struct("@Q"), 128
_ACKNOWLEDGED_AT = 120

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


def has_arrived(transport: Any) -> bool:
    """Whether bytes of the other side wait in the system's socket; C{False} where it cannot be known."""
    fileno = getattr(transport, "fileno", None)
    descriptor = fileno() if fileno is not None else -1
    if descriptor < 0:
        return False
    try:
        waiting = fcntl.ioctl(descriptor, termios.FIONREAD, struct.pack("@i", 0))
    except OSError:
        return False
    return bool(struct.unpack("@i", waiting)[0])


def unacknowledged_bytes(transport: Any) -> int:
    """Bytes that were written and that the other side has not taken: ours, and those in the system's socket.

    Where the system does not tell, only ours are known.
    """
    ours = len(getattr(transport, "dataBuffer", b"")) - getattr(transport, "offset", 0)
    return int(ours) + int(getattr(transport, "_tempDataLen", 0)) + _in_socket(transport)


def unacknowledged_anywhere(transport: Any) -> int:
    """As L{unacknowledged_bytes}, with those that wait in a TLS layer."""
    return buffered(transport) + _in_socket(transport)


def acknowledged_bytes(transport: Any) -> int | None:
    """Bytes that the other side has acknowledged since the connection was made, and one for that; C{None} where the
    system does not tell."""
    handle = getattr(transport, "socket", None)
    if not _TCP_INFO or not isinstance(handle, socket.socket):
        return None
    try:
        state = handle.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _TCP_INFO_BYTES)
    except OSError:
        return None
    return int(_ACKNOWLEDGED.unpack_from(state, _ACKNOWLEDGED_AT)[0]) if len(state) == _TCP_INFO_BYTES else None


def tcp_transport(transport: Any) -> Any:
    """The lowest of the transports that stand on each other: the one that holds the socket."""
    while (below := getattr(transport, "transport", None)) is not None:
        transport = below
    return transport


def before_close(transport: Any, look: Callable[[Failure], object]) -> None:
    """Have C{look} called once with why the connection is lost, while the kernel can still be asked about its socket.

    A protocol's own C{connectionLost} comes when Twisted has closed the socket. Nothing where there is none.

    @param transport: As L{tcp_transport} finds it.
    """
    lose = getattr(transport, "connectionLost", None)
    if lose is None or not isinstance(getattr(transport, "socket", None), socket.socket):
        return

    def lost(reason: Failure) -> None:
        del transport.connectionLost  # a cycle until here: every connection ends this way
        look(reason)
        lose(reason)

    transport.connectionLost = lost


def buffered(transport: Any) -> int:
    """Bytes that were written and are still in this process, a TLS layer's included."""
    ours = len(getattr(transport, "dataBuffer", b"")) - getattr(transport, "offset", 0)
    ours += getattr(transport, "_tempDataLen", 0) + sum(map(len, getattr(transport, "_appSendBuffer", ())))
    ours += sum(map(len, getattr(getattr(transport, "_aggregator", None), "_buffer", ())))  # small writes of TLS
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
