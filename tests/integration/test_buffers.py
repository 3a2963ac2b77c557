"""A bound for what the daemon holds in memory, kept by everybody together."""

from __future__ import annotations

import json
import resource
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import pytest

from tests.integration.test_background import metric
from tests.integration.test_memory import resident
from tests.support.processes import HOST
from tests.support.stack import Stack, eventually

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the figures come from Linux's /proc")

MIB = 1024 * 1024
LIMIT = 8 * MIB
BODY = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "x" * (3 * MIB)}]}).encode()
READ_WHOLE = 'param_whitelist: {model: ["gpt-*"]}'  # a rule for which the body must be known before it is sent
HELD = "llmproxy_buffered_bytes"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    env = {"LLMPROXY_SERVER_MAX_BUFFERED_BYTES": str(LIMIT)}
    with Stack(tmp_path_factory.mktemp("buffers"), more=READ_WHOLE, env=env) as running:
        yield running


class Sending:
    """A client that has sent all of its body but the last byte."""

    def __init__(self, stack: Stack, opened: ExitStack, chunked: bool = False) -> None:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {stack.token}\r\n"
        head += "Content-Type: application/json\r\n"
        head += "Transfer-Encoding: chunked\r\n\r\n" if chunked else f"Content-Length: {len(BODY)}\r\n\r\n"
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY) if chunked else BODY
        self.socket = opened.enter_context(socket.create_connection((HOST, stack.daemon.port), 30))
        self._last = body[-1:]
        with suppress(OSError):  # an answer may have come already, and the rest is not wanted
            self.socket.sendall(head.encode() + body[:-1])

    def refused(self) -> bool:
        """Whether an answer has come before the body was complete."""
        self.socket.settimeout(0.01)
        try:
            return bool(self.socket.recv(1, socket.MSG_PEEK))
        except TimeoutError:
            return False
        finally:
            self.socket.settimeout(30)

    def answer(self) -> tuple[int, str | None, str | None]:
        with suppress(OSError):
            self.socket.sendall(self._last)
        answer = HTTPResponse(self.socket)
        answer.begin()
        answer.read()
        return answer.status, answer.getheader("X-LLMProxy-Error"), answer.getheader("Retry-After")


@pytest.mark.parametrize("chunked", [False, True], ids=["with a length", "chunked"])
def test_many_that_are_read_whole(stack: Stack, chunked: bool) -> None:
    """Forty bodies of 3 MiB at once where 8 MiB may be held: two or so are taken, the others told to come again."""
    before = resident(stack.daemon.pid)
    with ExitStack() as opened:
        clients = [Sending(stack, opened, chunked) for _ in range(40)]
        eventually(lambda: sum(client.refused() for client in clients) >= 38, 20)
        assert metric(stack, HELD) <= LIMIT + MIB
        assert resident(stack.daemon.pid) - before < 40 * MIB
        answers = [client.answer() for client in clients]
    assert set(answers) == {(200, None, None), (503, "buffers_full", "1")}
    eventually(lambda: metric(stack, HELD) == 0)
    assert stack.ask("POST", "/v1/chat/completions", BODY, {"Content-Type": "application/json"}).status == 200
    assert metric(stack, "llmproxy_buffers_full_total") >= 38


def test_many_who_do_not_read(tmp_path: Path) -> None:
    """Their providers are made to wait earlier, further requests are told to come again, and what was begun goes on."""
    limit, size = 2 * MIB, 20_000_000
    with Stack(tmp_path, env={"LLMPROXY_SERVER_MAX_BUFFERED_BYTES": str(limit)}) as stack, ExitStack() as opened:
        before, clients = resident(stack.daemon.pid), []
        sent = f"GET /anything/-/bytes?size={size}&seed=1 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {stack.token}"
        most = 0.0
        for _ in range(80):
            client = opened.enter_context(socket.create_connection((HOST, stack.daemon.port), 30))
            client.sendall(sent.encode() + b"\r\n\r\n")
            clients.append(client)
            time.sleep(0.05)
            most = max(most, metric(stack, HELD))
        eventually(lambda: metric(stack, HELD) >= limit, 10)
        assert most < 2 * limit  # what was begun may take one piece more, each
        assert resident(stack.daemon.pid) - before < 20 * MIB
        refused = stack.ask("GET", "/v1/models")
        assert (refused.status, refused.header("X-LLMProxy-Error")) == (503, "buffers_full")
        assert (refused.header("Retry-After"), refused.header("X-Should-Retry")) == ("1", None)
        first = HTTPResponse(clients[0])
        first.begin()
        assert len(first.read()) == size
        opened.close()
        eventually(lambda: metric(stack, HELD) == 0, 10)
        assert stack.ask("GET", "/v1/models").status == 200


def test_the_system_gives_no_more_memory(tmp_path: Path) -> None:
    """C{ulimit -v}: some are told to come again, none that the proxy is broken, and the process goes on."""
    with Stack(tmp_path, more=READ_WHOLE) as stack, ExitStack() as opened:
        assert stack.ask("POST", "/v1/chat/completions", BODY, {"Content-Type": "application/json"}).status == 200
        pid = stack.daemon.pid
        status = Path(f"/proc/{pid}/status").read_text()
        size = int(next(line for line in status.splitlines() if line.startswith("VmSize")).split()[1]) * 1024
        limits = resource.prlimit(pid, resource.RLIMIT_AS)  # type: ignore[attr-defined]
        resource.prlimit(pid, resource.RLIMIT_AS, (size + 64 * MIB, limits[1]))  # type: ignore[attr-defined]
        clients = [Sending(stack, opened) for _ in range(40)]
        answers = [client.answer()[:2] for client in clients]
        assert set(answers) == {(200, None), (503, "buffers_full")}
        connection = HTTPConnection(HOST, stack.daemon.port, timeout=10)
        connection.request("GET", "/live")
        assert connection.getresponse().status == 200
        connection.close()
        eventually(lambda: stack.ask("GET", "/v1/models").status == 200)


@pytest.mark.long("2 s: a hundred at once, as forty where memory ends later")
def test_ulimit_from_the_start(tmp_path: Path) -> None:
    """C{ulimit -v 640 MiB}: a hundred uploads at once are answered, each, and none is reset."""
    stack = Stack(tmp_path, more=READ_WHOLE)
    bound = 640 * MIB
    setting = f"import os, resource, sys; resource.setrlimit(resource.RLIMIT_AS, ({bound}, {bound})); "
    stack.daemon._through = (sys.executable, "-c", setting + "os.execv(sys.argv[1], sys.argv[1:])")
    stack.daemon._fresh = True

    def sent(_: int) -> tuple[int, str | None]:
        answer = stack.ask("POST", "/v1/chat/completions", BODY, {"Content-Type": "application/json"}, timeout=120)
        return answer.status, answer.header("X-LLMProxy-Error")

    with stack, ThreadPoolExecutor(100) as clients:
        answers = list(clients.map(sent, range(100)))
        assert set(answers) == {(200, None), (503, "buffers_full")}
        assert answers.count((200, None)) >= 10
        assert stack.ask("GET", "/v1/models").status == 200
        assert "MemoryError" not in stack.daemon.output()


def test_what_is_written_anew_counts(tmp_path: Path) -> None:
    """A stream's request to which the question for its usage is added is held twice, until it is over."""
    prompt = [{"role": "user", "content": "x" * 200_000}]
    body = json.dumps({"model": "gpt-4o", "stream": True, "messages": prompt}).encode()
    with Stack(tmp_path, more="metering: {include_usage: inject}") as stack:
        connection = HTTPConnection(HOST, stack.daemon.port, timeout=30)
        headers = {"Authorization": f"Bearer {stack.token}", "X-Sim-Events": "20", "X-Sim-Delay": "0.2"}
        connection.request("POST", "/v1/chat/completions", body, {**headers, "Content-Type": "application/json"})
        response = connection.getresponse()
        assert metric(stack, HELD) >= 2 * len(body)
        assert b"[DONE]" in response.read()
        eventually(lambda: metric(stack, HELD) == 0)
        connection.close()
