"""Clients of a daemon that stream, and that ask at a steady rate: what each of them sees, with its connection."""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.support.processes import HOST
from tests.support.stack import Stack

CHAT = "/v1/chat/completions"
PATIENCE = 300.0
MAX_WAITING = 100  # requests that nothing has been heard of; more would only tell how slow the machine is
_SOCKET = re.compile(r"socket:\[(\d+)\]")


def _message(stack: Stack, stream: bool, more: str = "") -> bytes:
    question = {"model": "gpt-4o", "max_tokens": 400, "messages": [{"role": "user", "content": "x"}], "stream": stream}
    body = json.dumps(question).encode()
    return (
        f"POST {CHAT} HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {stack.token}\r\n{more}"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


class LiveLoad:
    """It, and what is counted of it.

    @ivar streams: How streams ended, by that; C{requests}: how the others were answered, likewise.
    @ivar lost: The port of each client whose connection ended before it had the whole of a response.
    @ivar live: The ports of the streams that are under way, and have had their first bytes.
    """

    def __init__(self, stack: Stack, *, gap: float = 0.2, events: int = 100) -> None:
        """
        @param gap: Seconds between two events of a stream; C{events}: how many it has.
        """
        self.streams: Counter[str] = Counter()
        self.requests: Counter[str] = Counter()
        self.lost: set[int] = set()
        self.live: set[int] = set()
        self._stack = stack
        self._steered = f"X-Sim-Delay: 0,{gap}\r\nX-Sim-Events: {events}\r\nConnection: close\r\n"
        self._over = asyncio.Event()
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def through(self, streams: int, rate: float, trial: Coroutine[Any, Any, None]) -> float:
        """Have so many streams and requests a second live through this; how many seconds that was."""
        started = time.monotonic()
        tasks = [asyncio.create_task(self._stream()) for _ in range(streams)]
        tasks.append(asyncio.create_task(self._send(rate)))
        try:
            await until(lambda: len(self.live) >= streams and self.requests["200"] > 0)
            await trial
            self._over.set()
            await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE)
        finally:
            for task in tasks:
                task.cancel()
            for _, writer in self._idle:
                writer.close()
        return time.monotonic() - started

    async def _stream(self) -> None:
        """One after the other, until it is over."""
        while not self._over.is_set():
            reader, writer = await asyncio.open_connection(HOST, self._stack.daemon.port)
            port = _port(writer)
            whole = b""
            try:
                writer.write(_message(self._stack, True, self._steered))
                whole = await asyncio.wait_for(reader.readuntil(b"data: "), PATIENCE)
                self.live.add(port)
                whole += await asyncio.wait_for(reader.read(-1), PATIENCE)
            except (TimeoutError, OSError, asyncio.IncompleteReadError) as e:
                whole += getattr(e, "partial", b"")
            finally:
                self.live.discard(port)
                writer.close()
            if b"[DONE]" in whole and whole.endswith(b"0\r\n\r\n"):
                self.streams["complete"] += 1
            else:
                self.streams["broken"] += 1
                self.lost.add(port)

    async def _request(self) -> None:
        """On a connection that was used before, if there is one. Nothing is sent again."""
        pair = self._idle.pop() if self._idle else await asyncio.open_connection(HOST, self._stack.daemon.port)
        reader, writer = pair
        try:
            writer.write(_message(self._stack, False))
            answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE)
            fields = answer.decode("latin-1").lower()
            length = int(fields.partition("content-length: ")[2].partition("\r\n")[0])
            await asyncio.wait_for(reader.readexactly(length), PATIENCE)
        except (TimeoutError, OSError, asyncio.IncompleteReadError) as e:
            self.requests[type(e).__name__] += 1
            self.lost.add(_port(writer))
            writer.close()
            return
        code = re.search(r"x-llmproxy-error: (\S+)", fields)
        self.requests[answer.split(None, 2)[1].decode() + (f" {code[1]}" if code else "")] += 1
        if "connection: close" in fields:
            writer.close()
        else:
            self._idle.append(pair)

    async def _send(self, rate: float) -> None:
        waiting: set[asyncio.Task[None]] = set()
        following = time.monotonic()
        while not self._over.is_set():
            if len(waiting) < MAX_WAITING:
                waiting.add(task := asyncio.create_task(self._request()))
                task.add_done_callback(waiting.discard)
            following += 1 / rate
            await asyncio.sleep(max(0.0, following - time.monotonic()))
        await asyncio.gather(*waiting)


def _port(writer: asyncio.StreamWriter) -> int:
    return int(writer.get_extra_info("sockname")[1])


def clients_of(pid: int) -> set[int]:
    """The ports of the clients on loopback whose connections this process has."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            found = _SOCKET.fullmatch(os.readlink(link))
            if found:
                inodes.add(found[1])
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {int(row[2].partition(":")[2], 16) for row in rows if row[9] in inodes}


async def until(said: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Ask again until the answer is true."""
    end = time.monotonic() + seconds
    while not await asyncio.to_thread(said):
        assert time.monotonic() < end, "it did not happen in time"
        await asyncio.sleep(0.05)
