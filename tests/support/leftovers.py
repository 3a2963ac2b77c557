"""Finds processes that outlive the test run that started them: none may be left when a run ends."""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import MutableMapping
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
MARK = "TEST_RUN_ID"  # an environment variable; children inherit it, and /proc shows with what a process was started
GRACE_SECONDS = 30.0  # on a busy machine a worker and its helpers take long to end
_HELPERS = ("multiprocessing.forkserver", "multiprocessing.resource_tracker")  # end with the process that started them


class Leftover(NamedTuple):
    pid: int
    command: str


def mark_run(environ: MutableMapping[str, str] = os.environ) -> None:
    """Give this run an id, which all that it starts inherit."""
    environ[MARK] = uuid.uuid4().hex


def leftovers(run_id: str, grace: float = GRACE_SECONDS) -> list[Leftover]:
    """The processes of a run that are still there after C{grace} seconds, apart from this one and its helpers."""
    end = time.monotonic() + grace
    while (left := _of_run(run_id)) and time.monotonic() < end:
        time.sleep(0.05)
    return left


def end_all(left: list[Leftover]) -> None:
    """Kill them, so that they do not trouble whatever runs next."""
    for leftover in left:
        try:
            os.kill(leftover.pid, signal.SIGKILL)
        except OSError:
            continue


def _of_run(run_id: str) -> list[Leftover]:
    wanted = f"{MARK}={run_id}".encode()
    found = []
    for folder in PROC.glob("[0-9]*"):
        try:
            if wanted not in (folder / "environ").read_bytes().split(b"\0"):
                continue
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:  # it has ended meanwhile, or belongs to somebody else
            continue
        own = int(folder.name) == os.getpid()
        helper = int(parent) == os.getpid() and any(name in command for name in _HELPERS)
        if not own and not helper and state != "Z":
            found.append(Leftover(int(folder.name), command))
    return found
