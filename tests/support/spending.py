"""Several processes that use one token at once; each runs this file, with C{URL TOKEN TRIES} and what begins it."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import react

from llmproxy.errors import QuotaExceeded
from tests.support.processes import start_command
from tests.support.stack import eventually
from tests.unit.store.contract import new_store

SECONDS = 60.0


def spend_in_processes(url: str, token: str, processes: int, tries: int) -> list[int]:
    """How many uses each process was allowed; all of them start when all of them are ready."""
    with TemporaryDirectory(prefix="llmproxy-spending-") as folder:
        go, logs = Path(folder, "go"), [Path(folder, f"log{number}") for number in range(processes)]
        started = [start_command([__file__, url, token, str(tries), go], log) for log in logs]
        try:
            eventually(lambda: all(log.exists() and log.read_text() == "ready\n" for log in logs), SECONDS)
            go.touch()
            assert [process.wait(SECONDS) for process in started] == [0] * processes, [log.read_text() for log in logs]
            return [int(log.read_text().split()[1]) for log in logs]
        finally:
            for process in started:
                process.kill()
                process.wait(SECONDS)


async def _spend(reactor: Any, url: str, token: str, tries: str, go: str) -> None:
    """Use the token as often as it is allowed, and print how often that was."""
    store = new_store(url, time.time, reactor=reactor, threads=8)
    await store.open()
    print("ready", flush=True)
    while not Path(go).exists():
        time.sleep(0.001)
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
