"""A slow reader slows its provider, not the daemon's memory."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from tests.support.processes import HOST
from tests.support.stack import Stack

SIZE = 60_000_000


def resident(pid: int) -> int:
    """Bytes of memory that the process holds."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))) * 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the figures come from Linux's /proc")
def test_a_large_answer_to_a_slow_reader_stays_with_the_provider(stack: Stack) -> None:
    stack.ask("GET", "/v1/models")
    idle = resident(stack.daemon.pid)
    with socket.create_connection((HOST, stack.daemon.port), 10) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.sendall(
            f"GET /anything/-/bytes?size={SIZE}&seed=1 HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: Bearer {stack.token}\r\n\r\n".encode()
        )
        received, most, end = 0, 0, time.monotonic() + 2
        while time.monotonic() < end:  # slowly
            received += len(connection.recv(65536))
            most = max(most, resident(stack.daemon.pid))
            time.sleep(0.01)
        while received < SIZE and (piece := connection.recv(1 << 20)):
            received += len(piece)
            most = max(most, resident(stack.daemon.pid))
    assert received >= SIZE
    assert most - idle < 16_000_000
