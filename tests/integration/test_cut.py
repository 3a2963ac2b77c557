"""Streams that the end of a process cuts: each has its event, and its line in the ledger before the process is gone."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.processes import HOST
from tests.support.stack import DATABASE, Stack, eventually
from tests.support.workers import WorkerStack, answering

CHAT = "/v1/chat/completions"
STREAM = json.dumps(
    {"model": "gpt-4o", "max_tokens": 400, "stream": True, "messages": [{"role": "user", "content": "x"}]}
).encode()
STREAMS = 12
PATIENCE = 60.0


def entered(home: Path) -> Counter[tuple[str, str]]:
    """Outcomes and errors of the ledger's lines."""
    with closing(sqlite3.connect(home / DATABASE)) as database:
        return Counter(database.execute("SELECT outcome, error FROM ledger"))


@pytest.mark.parametrize(
    ("workers", "fast_path", "by"),
    [(1, "true", "again"), (1, "false", "again"), (1, "true", "timeout"), (2, "true", "again")],
)
def test_many_streams(tmp_path: Path, workers: int, fast_path: str, by: str) -> None:
    """A second signal, or the end of C{drain_timeout}: all of them end in one turn, and each is recorded."""
    env = {"LLMPROXY_SERVER_FAST_PATH": fast_path, "LLMPROXY_SERVER_DRAIN_TIMEOUT": "1s" if by == "timeout" else "1h"}
    stack = Stack(tmp_path, env=env) if workers == 1 else WorkerStack(tmp_path, workers, env=env)
    with ThreadPoolExecutor(STREAMS) as pool, stack:
        slow = {"X-Sim-Delay": "0,1", "X-Sim-Events": "600"}
        before = len(stack.recorded())
        streams = [pool.submit(stack.ask, "POST", CHAT, STREAM, slow) for _ in range(STREAMS)]
        eventually(lambda: len(stack.recorded()) == before + STREAMS, PATIENCE)
        os.kill(stack.daemon.pid, signal.SIGTERM)
        eventually(lambda: not answering(stack.daemon.port), PATIENCE)
        if by == "again":
            os.kill(stack.daemon.pid, signal.SIGTERM)
        eventually(lambda: stack.daemon.ended, PATIENCE)
        assert all(each.exception(PATIENCE) is not None for each in streams)
        cut = Counter({("truncated", "shutdown"): STREAMS})
        assert Counter((each["outcome"], each["error"]) for each in stack.events()) == cut
        assert entered(tmp_path) == cut
        assert "dropped" not in stack.daemon.output()


@pytest.mark.parametrize(
    "gone", [False, pytest.param(True, marks=pytest.mark.long("6 s: a client that had left before"))]
)
def test_a_provider_that_is_heard_out(tmp_path: Path, gone: bool) -> None:
    """Nobody is there for what it still says: it is not waited for, and its request is recorded."""
    with Stack(tmp_path, more="on_client_abort: drain") as stack, socket.socket() as client:
        before = len(stack.recorded())
        client.connect((HOST, stack.daemon.port))
        head = f"POST {CHAT} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {stack.token}\r\nX-Sim-Delay: 0,1\r\n"
        head += f"X-Sim-Events: 600\r\nContent-Type: application/json\r\nContent-Length: {len(STREAM)}\r\n\r\n"
        client.sendall(head.encode() + STREAM)
        eventually(lambda: len(stack.recorded()) == before + 1, PATIENCE)
        assert client.recv(1)
        if gone:
            client.close()
            eventually(lambda: stack.metric("client_connections") == 1, PATIENCE)
        os.kill(stack.daemon.pid, signal.SIGTERM)
        eventually(lambda: not answering(stack.daemon.port), PATIENCE)
        os.kill(stack.daemon.pid, signal.SIGTERM)
        eventually(lambda: stack.daemon.ended, PATIENCE)
        end = ("cancelled", "") if gone else ("truncated", "shutdown")
        assert [(each["outcome"], each["error"]) for each in stack.events()] == [end]
        assert entered(tmp_path) == Counter([end])
        assert "Unhandled" not in stack.daemon.output()
