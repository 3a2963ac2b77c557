"""Asks the kernel what reading would tell, where nothing may be read."""

from __future__ import annotations

import select
from typing import Any

_FIN = getattr(select, "POLLRDHUP", 0)  # known on Linux only; elsewhere a reset is all that can be seen


def has_left(transport: Any, *, half: bool) -> bool:
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
