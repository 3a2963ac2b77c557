"""One process that uses a token as often as it can: C{python -m tests.integration.spending URL TOKEN TRIES}."""

from __future__ import annotations

import sys
import time
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import react

from llmproxy.errors import QuotaExceeded
from tests.unit.store.contract import new_store


async def spend(reactor: Any, url: str, token: str, tries: str) -> None:
    store = new_store(url, time.time, reactor=reactor, threads=8)
    await store.open()
    print("ready", flush=True)
    sys.stdin.readline()
    answers = await DeferredList(
        [store.validate_token_with_tracking(token) for _ in range(int(tries))], consumeErrors=True
    )
    for ok, answer in answers:
        if not ok:
            answer.trap(QuotaExceeded)
    print(sum(ok for ok, _ in answers), flush=True)
    await store.close()


if __name__ == "__main__":
    react(lambda reactor, *args: Deferred.fromCoroutine(spend(reactor, *args)), sys.argv[1:])
