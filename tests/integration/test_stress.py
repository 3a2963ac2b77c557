"""Many at once, and large: what it costs the daemon, and what others notice of it."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.integration.test_malformed import authorization, post
from tests.integration.test_memory import resident
from tests.support.processes import HOST
from tests.support.stack import Stack, eventually

pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the figures come from Linux's /proc"),
]

CHAT = b'{"model":"gpt-4o","stream":true,"messages":[{"role":"user","content":"x"}]}'
SIZE = 60_000_000


def sockets(pid: int) -> int:
    """How many sockets a process has open. Not all descriptors: the store opens connections to its file when many ask
    at once, and keeps them."""
    count = 0
    for number in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):
            count += os.readlink(f"/proc/{pid}/fd/{number}").startswith("socket:")
    return count


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def latency(stack: Stack, times: int = 30) -> float:
    """Seconds that an ordinary request takes, the median of some."""
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        assert stack.ask("GET", "/v1/models").status == 200
        taken.append(time.perf_counter() - begun)
    return sorted(taken)[times // 2]


@pytest.fixture
def crowd(stack: Stack) -> Iterator[ExitStack]:
    """Whatever is opened is closed in the end; what the daemon opens at its first request is open before."""
    assert stack.ask("POST", "/v1/chat/completions", CHAT, {"Content-Type": "application/json"}).status == 200
    with ExitStack() as opened:
        yield opened


def joined(stack: Stack, crowd: ExitStack, sent: bytes) -> socket.socket:
    connection = crowd.enter_context(socket.create_connection((HOST, stack.daemon.port), 10))
    connection.sendall(sent)
    return connection


def test_a_large_upload_to_a_provider_that_does_not_read(stack: Stack, crowd: ExitStack) -> None:
    """The client is held, not its bytes; and if it is gone, that is noticed."""
    stack.ask("GET", "/v1/models")
    before, most, sent = resident(stack.daemon.pid), 0, 0
    open_before = sockets(stack.daemon.pid)
    head = post(authorization(stack), b"X-Sim-Fault: stall-upload", b"Content-Length: %d" % SIZE)
    client = joined(stack, crowd, head)
    client.settimeout(0.5)
    with suppress(TimeoutError):
        while sent < SIZE:
            sent += client.send(bytes(65536))
            most = max(most, resident(stack.daemon.pid))
    assert 0 < sent < SIZE // 2
    assert most - before < 16_000_000
    reset(client)
    eventually(lambda: sockets(stack.daemon.pid) <= open_before)


def test_a_hundred_clients_that_are_reset(stack: Stack, crowd: ExitStack) -> None:
    """In the middle of their streams: within five seconds nothing of them is left, here or at the provider."""
    pids = (stack.daemon.pid, stack.simulator.pid)
    before = [sockets(pid) for pid in pids]
    sent = post(
        authorization(stack),
        b"Content-Type: application/json",
        b"X-Sim-Events: 500",
        b"X-Sim-Delay: 0,0.05",
        b"Content-Length: %d" % len(CHAT),
        body=CHAT,
    ).replace(b"/anything/v1/echo", b"/v1/chat/completions")
    clients = [joined(stack, crowd, sent) for _ in range(100)]
    for client in clients:
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert sockets(stack.daemon.pid) >= before[0] + 190
    for client in clients:
        reset(client)
    eventually(lambda: all(sockets(pid) <= n + 1 for pid, n in zip(pids, before, strict=True)), 5.0)
    assert "Traceback" not in stack.daemon.output()


def test_others_do_not_notice_idle_connections_and_slow_senders(stack: Stack, crowd: ExitStack) -> None:
    """A thousand that wait and a hundred that dribble: little memory, and the next request is as fast as before."""
    alone, before = latency(stack), resident(stack.daemon.pid)
    for _ in range(1000):
        idle = joined(stack, crowd, b"GET /live HTTP/1.1\r\nHost: a\r\n\r\n")
        assert idle.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert resident(stack.daemon.pid) - before < 1000 * 16_384
    slow = [joined(stack, crowd, b"GET /v1/models HTTP/1.1\r\nHost: a\r\nX-A: ") for _ in range(50)]
    slow += [joined(stack, crowd, post(authorization(stack), b"Content-Length: 100000")) for _ in range(50)]
    for _ in range(3):
        for client in slow:
            client.sendall(b"a")
        assert latency(stack) < 5 * alone + 0.05


def test_a_burst_of_requests_on_connections_of_their_own(stack: Stack) -> None:
    """Everybody is answered, though all ask in the same moment."""
    asked = f"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {stack.token}\r\n\r\n".encode()
    with ExitStack() as open_ones:
        clients = [open_ones.enter_context(socket.create_connection((HOST, stack.daemon.port), 10)) for _ in range(150)]
        for client in clients:
            client.sendall(asked)
        assert {client.recv(65536)[:15] for client in clients} == {b"HTTP/1.1 200 OK"}
