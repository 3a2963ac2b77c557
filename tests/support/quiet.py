"""Tests that are judged by the clock wait for a quiet machine: C{@pytest.mark.alone} says that one is."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

STAT = Path("/proc/stat")
SAMPLE_SECONDS = 0.1  # ten ticks of the kernel's clock for each processor
ENOUGH_IDLE = 0.5  # of all processors
TEST_SECONDS = 15.0  # that one test waits at most
RUN_SECONDS = 60.0  # that all tests of a run wait at most


class QuietMachine:
    """Waits until others leave processors to a test, or until it has waited long enough."""

    def __init__(
        self,
        idle: Callable[[float], float],
        clock: Callable[[], float] = time.monotonic,
        patience: float = RUN_SECONDS,
    ) -> None:
        """
        @param idle: Looks for so many seconds, and tells which part of the processors was idle.
        """
        self._idle = idle
        self._clock = clock
        self._patience = patience

    def wait(self) -> str:
        """C{""} once it is quiet; else what a reader of a failure should know."""
        begun = self._clock()
        end = begun + min(TEST_SECONDS, self._patience)
        while (idle := self._idle(SAMPLE_SECONDS)) < ENOUGH_IDLE:
            if self._clock() >= end:
                break
        self._patience = max(self._patience - (self._clock() - begun), 0.0)
        return (
            "" if idle >= ENOUGH_IDLE else f"The machine was busy: {idle:.0%} of it was idle. Judge a failure by that."
        )


def idle_part(seconds: float) -> float:
    """Which part of the processors was idle meanwhile, from Linux's C{/proc/stat} (proc(5)); 1 where there is none."""
    if not STAT.exists():
        return 1.0
    before = _times()
    time.sleep(seconds)
    spent = [after - begun for begun, after in zip(before, _times(), strict=True)]
    return (spent[3] + spent[4]) / max(sum(spent), 1)  # idle, and waiting for a disk


def _times() -> list[int]:
    return [int(field) for field in STAT.read_text().split("\n", 1)[0].split()[1:9]]
