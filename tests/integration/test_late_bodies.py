"""A body that comes some milliseconds behind its head is read like any other: its model is known, and its cost."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator

import pytest

from tests.support.stack import KEYS, Stack

REQUESTS = 60 if os.environ.get("CI") else 24
BODY = json.dumps({"messages": [{"role": "user", "content": "hello"}], "model": "gpt-4o-mini"}).encode()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("late")) as started:
        yield started


def test_model_and_cost_are_known(stack: Stack) -> None:
    """Of each project the first request, for which its key must be looked up, so that the body comes meanwhile."""
    for number in range(REQUESTS):
        project = stack.manage("POST", "/manage/projects", {"name": f"p{number}", "api_keys": KEYS})["id"]
        token = stack.manage("POST", "/manage/tokens", {"project_id": project, "name": "t"})["token"]
        with socket.create_connection(("127.0.0.1", stack.daemon.port), 10) as peer:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer.sendall(
                f"POST /openai/v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-Request-ID: late-{number}\r\n"
                f"Authorization: Bearer {token}\r\nContent-Length: {len(BODY)}\r\nConnection: close\r\n\r\n".encode()
            )
            time.sleep(0.0005 * (1 + number % 12))
            peer.sendall(BODY)
            while peer.recv(65_536):
                pass
    lines: dict[str, tuple[str, float | None]] = {}
    end = time.monotonic() + 10
    while len(lines) < REQUESTS and time.monotonic() < end:
        for said in stack.events():
            if said["request_id"].startswith("late-"):
                lines[said["request_id"]] = (said["model"], said["cost_usd"])
        time.sleep(0.1)
    assert len(lines) == REQUESTS
    assert [line for line in lines.values() if line[0] != "gpt-4o-mini" or not line[1]] == []
