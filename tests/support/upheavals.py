"""What daemons go through while clients are at it: reloads, rolls to new code, the death of a worker."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import NamedTuple

from tests.support.live_load import LiveLoad, clients_of, until
from tests.support.rolled import successors
from tests.support.stack import Stack
from tests.support.workers import is_running, workers_of


async def reload_and_roll(stack: Stack, reloads: int, rolls: int) -> None:
    """Of a supervisor with two workers: reloads by signal and by the management API, spread over the rolls."""
    done = 0
    for number in range(rolls):
        while done < reloads * (number + 1) // rolls:
            done += 1
            if done % 2:
                await asyncio.to_thread(stack.manage, "POST", "/manage/reload")
            else:
                before = stack.daemon.output().count("Reloaded the settings in")
                os.kill(stack.daemon.pid, signal.SIGHUP)
                await until(lambda before=before: stack.daemon.output().count("Reloaded the settings in") > before)  # type: ignore[misc]
        os.kill(stack.daemon.pid, signal.SIGUSR2)
        await until(lambda number=number: stack.daemon.output().count("Rolled 2 workers") > number)  # type: ignore[misc]


async def roll_one_process(stack: Stack, reloads: int, rolls: int) -> None:
    """Of a daemon with one worker, which is another process every time."""
    serving = stack.daemon.pid
    for number in range(rolls):
        for _ in range(reloads // rolls):
            await asyncio.to_thread(stack.manage, "POST", "/manage/reload")
        os.kill(serving, signal.SIGUSR2)
        await until(lambda number=number: len(successors(stack.daemon.output())) > number)  # type: ignore[misc]
        serving = successors(stack.daemon.output())[-1]


class Death(NamedTuple):
    """Of a worker.

    @ivar held: The ports of the clients that it had; C{streams}: those that were streaming.
    @ivar seconds: Until as many workers served as before.
    """

    held: set[int]
    streams: set[int]
    seconds: float


async def kill_a_worker(stack: Stack, load: LiveLoad) -> Death:
    """One of two. It is stopped first: so what it holds when it dies is known."""
    victim = workers_of(stack.daemon.pid)[0]
    os.kill(victim, signal.SIGSTOP)
    await until(lambda: Path(f"/proc/{victim}/stat").read_text().rpartition(")")[2].split()[0] == "T")
    held, live = clients_of(victim), set(load.live)
    os.kill(victim, signal.SIGKILL)
    killed = time.monotonic()
    await until(lambda: not is_running(victim))
    await until(lambda: stack.daemon.output().count(" is ready: 2 of 2 workers") >= 2)
    seconds = time.monotonic() - killed
    await until(lambda: not held & load.live)
    return Death(held, held & live, seconds)
