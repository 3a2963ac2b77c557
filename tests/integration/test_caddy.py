"""Behind Caddy, by the lines of the documentation."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.integration.test_containers import CHAT, STREAM
from tests.support.apt import program
from tests.support.processes import HOST, free_port
from tests.support.stack import Stack, eventually
from tests.support.workers import answering

DOCS = Path(__file__).parents[2] / "docs" / "operation.md"
PATIENCE = 60.0
ELSEWHERE = "203.0.113.9"


def settings(port: int, behind: int) -> str:
    """The Caddyfile of the documentation, without TLS, on a port of its own."""
    (block,) = re.findall(r"^```\n(proxy\.example\.com \{\n.*?^\})\n```$", DOCS.read_text(), re.MULTILINE | re.DOTALL)
    text = block.replace("proxy.example.com", f"http://{HOST}:{port}").replace("127.0.0.1:8080", f"{HOST}:{behind}")
    assert "flush_interval -1" in text and f":{behind} " in text
    return f"{{\n\tadmin off\n}}\n{text}\n"


@pytest.fixture(scope="module")
def caddy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, int]]:
    found, home, port = program("caddy", "caddy"), tmp_path_factory.mktemp("caddy"), free_port()
    with Stack(home, env={"LLMPROXY_SERVER_TRUSTED_PROXIES": HOST}) as stack:
        (home / "Caddyfile").write_text(settings(port, stack.daemon.port))
        log = home / "caddy.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [found, "run", "--config", str(home / "Caddyfile"), "--adapter", "caddyfile"],
                stdout=out, stderr=out, env={**os.environ, "HOME": str(home), "XDG_DATA_HOME": str(home)},
            )  # fmt: skip
        try:
            eventually(lambda: answering(port) or process.poll() is not None, PATIENCE)
            assert process.poll() is None, log.read_text()
            yield stack, port
        finally:
            process.terminate()
            process.wait(PATIENCE)


def test_events_come_one_by_one(caddy: tuple[Stack, int]) -> None:
    """Each is there while the stream goes on, and a client that leaves stops the provider."""
    stack, port = caddy
    connection = HTTPConnection(HOST, port, timeout=PATIENCE)
    given = {"Authorization": f"Bearer {stack.token}", "X-Sim-Delay": "0,0.5", "X-Sim-Events": "1000"}
    started, events = time.monotonic(), 0
    connection.request("POST", CHAT, STREAM, {**given, "X-Request-ID": "left"})
    answer = connection.getresponse()
    assert (answer.status, answer.getheader("Content-Type")) == (200, "text/event-stream; charset=utf-8")
    while events < 5:
        events += answer.readline().startswith(b"data:")
    assert time.monotonic() - started < 300  # a thousand of them take 500 s
    answer.close()
    connection.close()
    eventually(lambda: _outcome(stack, "left") == "cancelled", PATIENCE)


def test_whose_request_it_is(caddy: tuple[Stack, int]) -> None:
    """The client's address is what Caddy says, and not what the client says of itself."""
    stack, port = caddy
    body = b'{"model":"gpt-4o","messages":[{"role":"user","content":"x"}]}'
    answer = stack.ask("POST", CHAT, body, {"X-Forwarded-For": ELSEWHERE, "X-Request-ID": "whose"}, port=port)
    assert answer.status == 200 and answer["X-Request-ID"] == "whose"
    assert eventually(lambda: _outcome(stack, "whose")) == "complete"
    assert not any(ELSEWHERE in line for line in stack.daemon.output().splitlines() if "whose" in line)


def test_large_bodies(caddy: tuple[Stack, int]) -> None:
    stack, port = caddy
    body = b'{"model":"gpt-4o","messages":[{"role":"user","content":"' + b"x" * 5_000_000 + b'"}]}'
    assert stack.ask("POST", CHAT, body, port=port, timeout=PATIENCE).status == 200


def _outcome(stack: Stack, request_id: str) -> str:
    requests = stack.manage("GET", "/manage/requests")["data"]
    return next((str(each["outcome"]) for each in requests if each["request_id"] == request_id), "")
