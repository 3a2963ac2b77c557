"""Live streams and steady requests through what operators do to a daemon: C{bench/workers.py} in small.

Clients send nothing again: what one of them does not get is lost.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.live_load import CHAT, LiveLoad
from tests.support.rolled import ended_afterwards
from tests.support.stack import Stack, eventually
from tests.support.upheavals import kill_a_worker, reload_and_roll, roll_one_process
from tests.support.workers import WorkerStack

STREAMS, RATE = 40, 20.0


def complete(load: LiveLoad) -> bool:
    return set(load.requests) == {"200"} and set(load.streams) == {"complete"} and not load.lost


@pytest.mark.alone
class TestNobodyNotices:
    @pytest.mark.long("15 s: two rolls and ten reloads under forty streams and twenty requests a second lose nothing")
    def test_reloads_and_rolls_of_two_workers(self, tmp_path: Path) -> None:
        with WorkerStack(tmp_path, 2) as stack:
            load = LiveLoad(stack)
            asyncio.run(load.through(STREAMS, RATE, reload_and_roll(stack, 10, 2)))
            assert complete(load), (load.requests, load.streams)

    @pytest.mark.long("8 s: two rolls and four reloads under forty streams and twenty requests a second lose nothing")
    def test_rolls_of_one_process(self, tmp_path: Path) -> None:
        with Stack(tmp_path) as stack, ended_afterwards(stack.daemon.output):
            load = LiveLoad(stack)
            asyncio.run(load.through(STREAMS, RATE, roll_one_process(stack, 4, 2)))
            assert complete(load), (load.requests, load.streams)


@pytest.mark.alone
@pytest.mark.long("8 s: what a death costs under forty streams and twenty requests a second")
def test_a_killed_worker_loses_what_it_had_and_nothing_else(tmp_path: Path) -> None:
    with WorkerStack(tmp_path, 2) as stack:
        load = LiveLoad(stack)

        async def trial() -> None:
            death = await kill_a_worker(stack, load)
            assert load.lost <= death.held, "others lose nothing"
            assert death.streams <= load.lost, "its streams broke visibly"
            load.lost.clear()

        asyncio.run(load.through(STREAMS, RATE, trial()))
        assert not load.lost


def test_a_provider_that_is_busy_while_workers_are_rolled(tmp_path: Path) -> None:
    """Fresh workers have no connections yet, and make many at once: those wait until the provider gets to them."""
    body = json.dumps({"model": "gpt-4o", "max_tokens": 40, "messages": [{"role": "user", "content": "x"}]}).encode()
    clients = 120
    with (
        WorkerStack(tmp_path, 2, more="timeouts: {connect: 5s}") as stack,
        ThreadPoolExecutor(clients) as pool,
    ):
        os.kill(stack.daemon.pid, signal.SIGUSR2)
        eventually(lambda: "Rolled 2 workers" in stack.daemon.output(), 90)
        os.kill(stack.simulator.pid, signal.SIGSTOP)
        try:
            asked = [pool.submit(stack.ask, "POST", CHAT, body, timeout=90) for _ in range(clients)]
            time.sleep(7)  # longer than connections may take
        finally:
            os.kill(stack.simulator.pid, signal.SIGCONT)
        assert {each.result(90).status for each in asked} == {200}
