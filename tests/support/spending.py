"""Several processes that use one token at once; each is C{python -m tests.support.spending URL TOKEN TRIES}."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import react

from llmproxy.errors import QuotaExceeded
from tests.unit.store.contract import new_store

ROOT = Path(__file__).parents[2]


def spend_in_processes(url: str, token: str, processes: int, tries: int) -> list[int]:
    """How many uses each process was allowed; all of them start when all of them are ready."""
    command = [sys.executable, "-m", "tests.support.spending", url, token, str(tries)]
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


async def _spend(reactor: Any, url: str, token: str, tries: str) -> None:
    """Use the token as often as it is allowed, and print how often that was."""
    store = new_store(url, time.time, reactor=reactor, threads=8)
    await store.open()
    print("ready", flush=True)
    sys.stdin.readline()
    results = await DeferredList(
        [store.validate_token_with_tracking(token) for _ in range(int(tries))], consumeErrors=True
    )
    for ok, result in results:
        if not ok:
            result.trap(QuotaExceeded)
    print(sum(ok for ok, _ in results), flush=True)
    await store.close()


if __name__ == "__main__":
    react(lambda reactor, *args: Deferred.fromCoroutine(_spend(reactor, *args)), sys.argv[1:])
