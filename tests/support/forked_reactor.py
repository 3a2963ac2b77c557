"""A reactor that was there before a fork, and has not run, for the process that was forked."""

from __future__ import annotations

import os
import select
from typing import Any


def renew(reactor: Any) -> None:
    """Give it an epoll object and a waker of its own: what it has is shared with the process that was forked from.

    The new ones take the descriptors of the old, so that nothing else of the reactor changes.
    """
    waker = reactor.waker
    for place, descriptor in zip((waker.i, waker.o), os.pipe(), strict=True):
        os.set_blocking(descriptor, False)
        _move(descriptor, place)
    if hasattr(reactor, "_poller"):
        poller = select.epoll()
        os.dup2(poller.fileno(), reactor._poller.fileno(), inheritable=False)
        poller.close()
        reactor._poller.register(waker.i, select.EPOLLIN)


def _move(descriptor: int, place: int) -> None:
    os.dup2(descriptor, place, inheritable=False)
    os.close(descriptor)
