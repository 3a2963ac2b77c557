"""What a system needs to be there, and what a stream or an idle connection adds to that."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack
from dataclasses import replace

from loading import await_rest, load
from scenarios import SCENARIOS, Figures, paced, stream
from systems import HOST, System, Systems

FEW, MANY = 500, 1500  # the difference counts: what the first ones take may have been free already
SLOW = 1_000_000  # microseconds between the events of a stream that is held open


def memory(systems: Systems, name: str) -> Figures:
    """Start it three times: for idle connections, for few streams, for many."""
    few, many = (_streams(systems.start(name), held) for held in (FEW, MANY))
    return _idle(systems.start(name)) | {"kb_per_stream": (many - few) / (MANY - FEW)}


def _idle(system: System) -> Figures:
    with system.process as process, ExitStack() as held:
        process.restart()  # the first time it made what it needs, its database for one
        time.sleep(1)
        found = {"ready_s": process.seconds, "idle_mb": process.rss / 1024}
        _warm(system)
        rss = []
        for count in (FEW, MANY - FEW):
            for _ in range(count):
                _answered(held.enter_context(socket.create_connection((HOST, system.port), 10)), system.token)
            await_rest(system)
            rss.append(process.rss)
        return found | {"kb_per_idle": (rss[1] - rss[0]) / (MANY - FEW)}


def _streams(system: System, count: int) -> float:
    """Kilobytes of memory with so many streams open."""
    with system.process as process:
        _warm(system)
        held = replace(paced(count, 500), body=stream(512, SLOW))
        said = load(system, system.port, held, ["-d", "1", "-w", str(held.warm), *held.load], process.pids)
        if said["max_open"] != count or said["err"] or said["bad"]:
            raise RuntimeError(f"{count} streams could not be held: {said}")
        return float(said["rss_mb"] * 1024)


def _warm(system: System) -> None:
    """What it has once, such as room for the lines that are entered together, no stream or connection is charged for."""
    load(system, system.port, SCENARIOS["j32"], ["-d", "2", "-w", "0.1", "-c", "8"])
    await_rest(system)


def _answered(connection: socket.socket, token: str) -> None:
    """One request, answered; then the connection is idle."""
    scenario = SCENARIOS["j32"]
    body = scenario.body.encode()
    head = (
        f"POST {scenario.path} HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    connection.sendall(head.encode() + body)
    received = b""
    while not received.endswith(b"}"):
        data = connection.recv(65536)
        if not data:
            raise ConnectionError("The connection was closed instead of being kept.")
        received += data
    if not received.startswith(b"HTTP/1.1 200"):
        raise ConnectionError(f"The answer is {received[:100]!r}.")
