#!/usr/bin/env python3
"""Lets a million distinct answers pass through the cache, and looks how much memory the daemon takes.

Fails where that is more than it took empty, C{max_bytes}, and a fifth of that. C{make cache-memory} calls it.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent.parent), str(HERE)]

from run import MANAGEMENT, SETTINGS, token_of  # noqa: E402

from tests.support.processes import HOST, Daemon, free_port  # noqa: E402

CONNECTIONS, AHEAD = 8, 32  # of the load: requests that are under way on each


class Origin(asyncio.Protocol):
    """Answers every request with its own target in a body that may be kept for a day."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        *heads, self._held = (self._held + data).split(b"\r\n\r\n")
        for head in heads:
            body = (head.partition(b" HTTP")[0] * (self._size // 12 + 1))[: self._size]
            self._transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nCache-Control: max-age=86400\r\n"
                b"Date: Wed, 25 Nov 2026 12:00:00 GMT\r\nServer: origin\r\nContent-Length: %d\r\n\r\n%b"
                % (len(body), body)
            )


class Load(asyncio.Protocol):
    """Asks for targets of its own, some at a time, until there are enough answers."""

    def __init__(self, token: str, number: int, count: int) -> None:
        self._head = f"Host: x\r\nAuthorization: Bearer {token}\r\n\r\n"
        self._number, self._left, self._due = number, count, count
        self._asked = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._ask(AHEAD)

    def data_received(self, data: bytes) -> None:
        # A piece may end inside a status line; then the answer is counted with the next one. None is counted twice.
        answered = data.count(b"HTTP/1.1 200")
        self._due -= answered
        if self._due <= CONNECTIONS:
            self.done.done() or self.done.set_result(None)
        self._ask(answered)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(error or ConnectionError("The daemon closed the connection."))

    def _ask(self, more: int) -> None:
        more = min(more, self._left)
        self._left -= more
        wanted = range(self._asked, self._asked + more)
        self._asked += more
        lines = (f"GET /v1/models/{self._number}-{n} HTTP/1.1\r\n{self._head}" for n in wanted)
        self._transport.write("".join(lines).encode())


def memory(pid: int, what: str) -> float:
    """Megabytes that the process takes now (C{VmRSS}), or has taken at most (C{VmHWM})."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 1024


async def fill(port: int, origin: int, token: str, count: int, size: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Origin(size), HOST, origin)
    loads = []
    for number in range(CONNECTIONS):
        _, load = await loop.create_connection(
            lambda number=number: Load(token, number, count // CONNECTIONS),
            HOST,
            port,  # type: ignore[misc]
        )
        loads.append(load.done)
    await asyncio.gather(*loads)
    server.close()


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--answers", type=int, default=1_000_000)
    options.add_argument("--size", type=int, default=1000, help="bytes of each body")
    options.add_argument("--max-mib", type=int, default=256)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="cachefill-") as folder:
        home, origin, port = Path(folder), free_port(), free_port()
        config = home / "apis.yaml"
        cache = f"max_bytes: {chosen.max_mib}MiB"
        config.write_text(SETTINGS.format(home=home, host=HOST, origin=origin, port=port, cache=cache))
        daemon = Daemon(
            "llmproxy", "--config", str(config), port=port, log=home / "llmproxy.log",
            env={"LLMPROXY_MANAGEMENT_TOKEN": MANAGEMENT, "LLMPROXY_ENCRYPTION_KEY": "a key for the cache suite's run"},
        )  # fmt: skip
        with daemon:
            token, empty, began = token_of(daemon), memory(daemon.pid, "VmRSS"), time.monotonic()
            asyncio.run(fill(port, origin, token, chosen.answers, chosen.size))
            took, full, most = time.monotonic() - began, memory(daemon.pid, "VmRSS"), memory(daemon.pid, "VmHWM")
    allowed = empty + chosen.max_mib * 1.2
    print(f"{chosen.answers:,} answers of {chosen.size} bytes in {took:.0f} s ({chosen.answers / took:,.0f}/s)")
    print(f"memory: {empty:.0f} MiB empty, {full:.0f} MiB after, {most:.0f} MiB at most; allowed {allowed:.0f} MiB")
    return 0 if most <= allowed else 1


if __name__ == "__main__":
    sys.exit(main())
