"""Puts a reactor on the monotonic clock, so that no wait depends on what the wall clock does."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

from twisted.internet.base import ReactorBase


def use_monotonic_clock(reactor: Any, seconds: Callable[[], float] = monotonic) -> None:
    """Make C{reactor.seconds()}, and with it every timer, count by a clock that nobody sets.

    Twisted's reactors count by C{time.time()}: set back by 30 s (NTP, a resumed virtual machine, an operator), every
    timer stands still for 30 s; set forward, all fire at once. What waits already keeps the rest of its time.

    All of Twisted's own reactors look their clock up as C{self.seconds}, the ones on asyncio, GLib and Qt too. One
    that is no L{ReactorBase}, such as a fake, is left alone.
    """
    if not isinstance(reactor, ReactorBase):
        return
    before = reactor.seconds()
    waiting: list[tuple[Any, float]] = [(call, call.getTime() - before) for call in reactor.getDelayedCalls()]
    reactor.seconds = seconds
    for call, left in waiting:
        call.seconds = seconds
        call.reset(max(left, 0.0))
