"""Several processes that use one token at the same moment."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def spend_in_processes(url: str, token: str, processes: int, tries: int) -> list[int]:
    """How many uses each process was allowed; all of them start when all of them are ready."""
    command = [sys.executable, "-m", "tests.integration.spending", url, token, str(tries)]
    started = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    try:
        for process in started:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        return [int(process.communicate(timeout=60)[0]) for process in _released(started)]
    finally:
        for process in started:
            process.kill()
            process.communicate()


def _released(started: list[subprocess.Popen[str]]) -> list[subprocess.Popen[str]]:
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return started
