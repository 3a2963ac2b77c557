"""A daemon that may have few descriptors."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import pytest

from llmproxy.wire.descriptors import FOR_FILES
from tests.integration.test_background import metric, ready
from tests.support.processes import HOST
from tests.support.responses import Response
from tests.support.stack import Stack, eventually

pytestmark = pytest.mark.skipif(not Path("/proc/self/limits").exists(), reason="limits are read in Linux's /proc")

SOFT, HARD = 64, 200
LIMITED = (
    "import os, resource, sys; "
    f"resource.setrlimit(resource.RLIMIT_NOFILE, ({SOFT}, {HARD})); os.execv(sys.argv[1], sys.argv[1:])"
)
STREAM = b'{"model":"gpt-4o","stream":true,"messages":[{"role":"user","content":"x"}]}'
SLOW = {"Content-Type": "application/json", "X-Sim-Events": "20", "X-Sim-Delay": "0,0.1"}
CLIENTS = 140  # each of them needs two descriptors


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    running = Stack(tmp_path_factory.mktemp("few"), more="timeouts: {connect: 5s}")
    running.daemon._through = (sys.executable, "-c", LIMITED)
    running.daemon._fresh = True
    with running:
        yield running


def test_the_soft_limit_is_raised(stack: Stack) -> None:
    """To the hard one, at the start."""
    limits = Path(f"/proc/{stack.daemon.pid}/limits").read_text()
    assert next(line for line in limits.splitlines() if line.startswith("Max open files")).split()[3:5] == [
        "200",
        "200",
    ]


def test_idle_connections_make_room(stack: Stack) -> None:
    """Three times as many clients as there are descriptors, which wait for nothing: the next request is answered."""
    with ExitStack() as opened:
        for _ in range(3 * HARD):
            client = opened.enter_context(socket.create_connection((HOST, stack.daemon.port), 10))
            client.sendall(b"GET /live HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert stack.ask("POST", "/v1/chat/completions", STREAM, {"Content-Type": "application/json"}).status == 200
    assert metric(stack, "llmproxy_descriptor_shortages_total") >= 1
    assert "Descriptors run short" in stack.daemon.output()
    eventually(lambda: ready(stack)[1]["checks"]["descriptors"] == "ok")


def state(stack: Stack) -> str:
    """What readiness says of descriptors; C{""} where there was none for the one who asked."""
    try:
        return str(ready(stack)[1]["checks"]["descriptors"])
    except ConnectionError:
        return ""


def test_readiness_after_a_shortage(stack: Stack) -> None:
    """While there are none nobody is accepted who could ask; who does after it is told for some seconds."""
    with ExitStack() as opened:
        for _ in range(HARD):  # each is in the middle of a request, so that it is not closed to make room
            client = opened.enter_context(socket.create_connection((HOST, stack.daemon.port), 10))
            client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n")
        eventually(lambda: len(os.listdir(f"/proc/{stack.daemon.pid}/fd")) > HARD // 2)
    assert eventually(lambda: state(stack)) == "short"
    assert metric(stack, 'llmproxy_check_ok{check="descriptors"}') == 0
    eventually(lambda: ready(stack)[1]["checks"]["descriptors"] == "ok")
    assert metric(stack, 'llmproxy_check_ok{check="descriptors"}') == 1


def test_more_streams_than_descriptors(stack: Stack) -> None:
    """Those that come first are served, others wait, or are told that it is the proxy that has none: no provider is
    blamed, no breaker opens, and the ledger goes on."""

    def asked(_: int) -> Response | None:
        try:
            return stack.ask("POST", "/v1/chat/completions", STREAM, SLOW)
        except ConnectionError:
            return None  # accepted in the same moment as many others

    opened = []
    with ThreadPoolExecutor(CLIENTS) as clients:
        pending = clients.map(asked, range(CLIENTS))
        time.sleep(1)  # the streams take two seconds
        for _ in range(11):
            opened.append(len(os.listdir(f"/proc/{stack.daemon.pid}/fd")))
            time.sleep(0.05)
        answers = list(pending)
    print("descriptors open:", opened)
    assert 100 < median(opened) <= HARD - FOR_FILES, opened  # what is reserved for files stays free
    statuses = [answer.status for answer in answers if answer is not None]
    codes = {answer.header("X-LLMProxy-Error") for answer in answers if answer is not None and answer.status != 200}
    assert statuses.count(200) >= 60, (statuses, codes)
    assert codes <= {"descriptors_exhausted"}
    for answer in answers:
        if answer is not None and answer.status != 200:
            assert (answer.status, answer.header("Retry-After")) == (503, "1")
    assert statuses.count(200) + statuses.count(503) == len(statuses)
    assert len(answers) - len(statuses) <= 70  # a listener accepts up to a hundred in one turn
    time.sleep(1)
    assert stack.ask("GET", "/v1/models").status == 200
    assert "Traceback" not in stack.daemon.output()
    page = stack.ask("GET", "/metrics", token=stack.env["LLMPROXY_MANAGEMENT_TOKEN"]).body.decode()
    assert 'code="upstream_unreachable"' not in page
    assert 'code="store_unavailable"' not in page
