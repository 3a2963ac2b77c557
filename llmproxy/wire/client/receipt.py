"""What the kernel knows of whether a provider has got anything of a request, when its connection ends.

An end in good order (FIN, or TLS's close_notify) acknowledges all that had come by then. Where nothing of the request
is acknowledged, the provider had ended the connection before any of it came there: it will never know of it. A reset
acknowledges nothing, also when the request was read to its end, and so says nothing.
"""

from __future__ import annotations

from typing import Any

from llmproxy.wire.socket_state import acknowledged_bytes, tcp_transport, unacknowledged_anywhere


def sent_bytes(transport: Any) -> int | None:
    """All that was ever written on a connection; C{None} where the kernel does not tell."""
    acknowledged = acknowledged_bytes(tcp_transport(transport))
    return None if acknowledged is None else acknowledged + unacknowledged_anywhere(transport)


def none_received(transport: Any, size: int, sent_before: int | None, *, in_pieces: bool) -> bool:
    """Whether the other end of a connection that it has ended in good order has got nothing of the last message.

    @param size: Bytes of the message; C{sent_before}: L{sent_bytes} before it, needed where it was sent C{in_pieces}:
        it is then not known how many of them are in this process.
    """
    if in_pieces:
        acknowledged = acknowledged_bytes(tcp_transport(transport))
        return acknowledged is not None and sent_before is not None and acknowledged <= sent_before
    # TLS adds some bytes to each of its records, fewer in all than a record has: without the whole of its first one,
    # the other end has nothing.
    return unacknowledged_anywhere(transport) >= size
