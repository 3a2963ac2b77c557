#!/usr/bin/env python3
"""What clients see of several workers while these are reloaded, rolled and killed.

    python bench/workers.py [rolls | kills] [--streams 200] [--rate 100]

C{rolls}: so many live streams and requests a second through 40 reloads and 5 rolls of two workers. C{kills}: a worker is
killed under the same load. It prints what failed and what broke.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.support.processes import HOST
from tests.support.workers import WorkerStack, workers_of

CHAT = "/v1/chat/completions"


def head(stack: WorkerStack, body: bytes, more: str = "") -> bytes:
    return (
        f"POST {CHAT} HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {stack.token}\r\n{more}"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def body(stream: bool) -> bytes:
    question = {"model": "gpt-4o", "max_tokens": 400, "messages": [{"role": "user", "content": "x"}], "stream": stream}
    return json.dumps(question).encode()


class Load:
    """What is counted of it."""

    def __init__(self, stack: WorkerStack) -> None:
        self.stack = stack
        self.streams: Counter[str] = Counter()
        self.requests: Counter[str] = Counter()
        self.over = asyncio.Event()
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def stream(self) -> None:
        """One after the other, of some 20 s each, until it is over."""
        more = "X-Sim-Delay: 0,0.2\r\nX-Sim-Events: 100\r\nConnection: close\r\n"
        while not self.over.is_set():
            try:
                reader, writer = await asyncio.open_connection(HOST, self.stack.daemon.port)
                writer.write(head(self.stack, body(True), more))
                whole = await asyncio.wait_for(reader.read(), 300)
                writer.close()
            except (OSError, asyncio.TimeoutError) as e:
                self.streams[f"failed: {type(e).__name__}"] += 1
                continue
            whole_stream = b"[DONE]" in whole and whole.endswith(b"0\r\n\r\n")
            self.streams["complete" if whole_stream else f"broken after {len(whole) and 'some'} bytes"] += 1

    async def request(self) -> None:
        """On a connection that was used before, as clients do it: once more where it was closed before a byte came."""
        for attempt in range(3):
            fresh = not self._idle
            try:
                pair = await asyncio.open_connection(HOST, self.stack.daemon.port) if fresh else self._idle.pop()
                reader, writer = pair
                writer.write(head(self.stack, body(False)))
                answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
                fields = answer.decode("latin-1").lower()
                length = int(fields.partition("content-length: ")[2].partition("\r\n")[0])
                await asyncio.wait_for(reader.readexactly(length), 60)
            except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError) as e:
                empty = not getattr(e, "partial", b"")
                if not fresh and empty and not isinstance(e, asyncio.TimeoutError):
                    self.requests["closed while idle, sent again"] += 1
                    continue
                self.requests[f"failed: {type(e).__name__}"] += 1
                return
            self.requests[answer.split(None, 2)[1].decode()] += 1
            if "connection: close" in fields:
                writer.close()
            else:
                self._idle.append(pair)
            return

    async def send(self, rate: float) -> None:
        waiting: set[asyncio.Task[None]] = set()
        following = time.monotonic()
        while not self.over.is_set():
            waiting.add(task := asyncio.create_task(self.request()))
            task.add_done_callback(waiting.discard)
            following += 1 / rate
            await asyncio.sleep(max(0.0, following - time.monotonic()))
        await asyncio.gather(*waiting)


async def until(said, seconds: float = 180.0) -> None:
    end = time.monotonic() + seconds
    while not await asyncio.to_thread(said):
        assert time.monotonic() < end, "it did not happen in time"
        await asyncio.sleep(0.1)


async def rolls(load: Load, stack: WorkerStack) -> None:
    for number in range(5):
        for _ in range(8):
            await asyncio.to_thread(stack.manage, "POST", "/manage/reload")
            await asyncio.sleep(0.5)
        os.kill(stack.daemon.pid, signal.SIGUSR2)
        await until(lambda number=number: stack.daemon.output().count("Rolled 2 workers") == number + 1)
        print(f"  rolled {number + 1} times", flush=True)


async def kills(load: Load, stack: WorkerStack) -> None:
    await asyncio.sleep(5)
    old = workers_of(stack.daemon.pid)
    before = load.requests.copy()
    os.kill(old[0], signal.SIGKILL)
    killed = time.monotonic()
    await until(lambda: len(set(workers_of(stack.daemon.pid)) - set(old)) == 1)
    await until(lambda: stack.daemon.output().count(" is ready: 2 of 2 workers") >= 2)
    print(f"  another one served after {time.monotonic() - killed:.1f} s; until then {load.requests - before}")
    await asyncio.sleep(10)


async def main(given: argparse.Namespace, stack: WorkerStack) -> None:
    load = Load(stack)
    streams = [asyncio.create_task(load.stream()) for _ in range(given.streams)]
    sending = asyncio.create_task(load.send(given.rate))
    started = time.monotonic()
    await asyncio.sleep(5)
    await {"rolls": rolls, "kills": kills}[given.what](load, stack)
    load.over.set()
    await asyncio.gather(sending, *streams)
    print(f"  {time.monotonic() - started:.0f} s; requests: {dict(load.requests)}; streams: {dict(load.streams)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("rolls", "kills"))
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--rate", type=float, default=100.0)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as home, WorkerStack(Path(home), 2) as running:
        asyncio.run(main(chosen, running))
