"""Notes each turn of a daemon's reactor that computes for long, by its thread's own time: a busy machine adds nothing.

Python imports a module of this name at its start, where the folder is on PYTHONPATH. TURNS names the file that gets a
line for each turn above L{NOTED_SECONDS}: milliseconds of it, and those that the garbage collector took.
"""

from __future__ import annotations

import gc
import os
import time
from select import epoll
from typing import Any

NOTED_SECONDS = 0.002


class TimedEpoll:
    """An C{epoll} that times what is done between two calls of L{poll}: all events, timers and calls of one turn."""

    def __init__(self, path: str) -> None:
        self._epoll = epoll()
        self._path = path
        self._began: float | None = None
        self._collecting = self._collected = 0.0
        gc.callbacks.append(self._collection)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._epoll, name)

    def poll(self, timeout: float, maxevents: int) -> list[tuple[int, int]]:
        if self._began is not None:
            took = time.thread_time() - self._began
            if took > NOTED_SECONDS:
                with open(self._path, "a") as turns:
                    turns.write(f"{took * 1000:.1f} {self._collected * 1000:.1f}\n")
        events = self._epoll.poll(timeout, maxevents)
        self._collected = 0.0
        self._began = time.thread_time()
        return events

    def _collection(self, phase: str, info: dict[str, int]) -> None:
        now = time.thread_time()
        if phase == "start":
            self._collecting = now
        else:
            self._collected += now - self._collecting


if path := os.environ.get("TURNS", ""):
    import twisted.internet.epollreactor as epollreactor

    epollreactor.epoll = lambda *_: TimedEpoll(path)  # type: ignore[assignment,misc]
