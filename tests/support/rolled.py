"""Daemons that were replaced by others: who serves now, and the end of all of them."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from tests.support.workers import is_running

_TAKEN = re.compile(r"Took over as process (\d+)")


def successors(log: str) -> list[int]:
    """The processes that have taken over, by what the log says, the last one at the end."""
    return [int(number) for number in _TAKEN.findall(log)]


@contextmanager
def ended_afterwards(log: Callable[[], str]) -> Iterator[None]:
    """Have the successors end with the block, also when it fails: they are nobody's children."""
    try:
        yield
    finally:
        running = successors(log())
        for number, patience in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0)):
            end = time.monotonic() + patience
            for pid in running:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            while (running := [pid for pid in running if is_running(pid)]) and time.monotonic() < end:
                time.sleep(0.05)
