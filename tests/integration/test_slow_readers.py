"""Clients that ask for much and take little, or ask for more than their share, and the started daemon."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.integration.test_malformed import authorization, get, post
from tests.support.processes import HOST
from tests.support.stack import MANAGEMENT, Stack, eventually

LARGE = b"/anything/-/bytes?size=50000000&seed=1"


def metrics(stack: Stack) -> str:
    return stack.ask("GET", "/metrics", token=MANAGEMENT).body.decode()


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A daemon that expects 100 KB/s of whoever has something to take, and allows a project four requests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMPROXY_SERVER_SEND_TIMEOUT", "2s")
        patch.setenv("LLMPROXY_SERVER_MIN_SEND_RATE", "100000")
        patch.setenv("LLMPROXY_SERVER_MAX_CONNECTIONS_PER_ADDRESS", "10")
        home = tmp_path_factory.mktemp("strict")
        with Stack(home, more="connection: {max_open_per_project: 4}") as stack:
            yield stack


def asked(stack: Stack, target: bytes) -> socket.socket:
    connection = socket.create_connection((HOST, stack.daemon.port), 10)
    connection.sendall(get(target, authorization(stack)))
    return connection


def stalled(stack: Stack) -> list[tuple[str, int]]:
    """The records of clients that were cut: outcome and status."""
    return [(record["outcome"], record["status"]) for record in stack.events() if record["error"] == "client_stalled"]


@pytest.mark.parametrize("sip", [0, 2000], ids=["nothing", "a-little-now-and-then"])
def test_one_that_hardly_reads(strict: Stack, sip: int) -> None:
    """Is reset after C{server.send_timeout}, its provider with it, and the record says so."""
    before, begun = stalled(strict), time.monotonic()
    with asked(strict, LARGE) as client:
        client.recv(10)
        with pytest.raises(ConnectionResetError):
            while time.monotonic() - begun < 10:
                if sip:
                    client.recv(sip)
                time.sleep(0.1)
                error = client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if error:
                    raise ConnectionResetError(error)
    assert 1.5 < time.monotonic() - begun < 6
    eventually(lambda: stalled(strict) == [*before, ("cancelled", 200)])


def test_one_that_reads_slowly_but_enough(strict: Stack) -> None:
    """At 400 KB/s for four times C{server.send_timeout}: however large the system's buffers, it goes on."""
    with asked(strict, LARGE) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        begun, taken = time.monotonic(), 0
        while (passed := time.monotonic() - begun) < 8:
            if taken < passed * 400_000:
                piece = client.recv(65536)
                assert piece
                taken += len(piece)
            else:
                time.sleep(0.01)


def test_a_provider_that_is_slow_itself(strict: Stack) -> None:
    """A stream of a few bytes a second is nobody's fault."""
    body = b'{"model":"gpt-4o","stream":true,"messages":[{"role":"user","content":"x"}]}'
    lines = {"Content-Type": "application/json", "X-Sim-Events": "6", "X-Sim-Delay": "0,0.8"}
    answer = strict.ask("POST", "/v1/chat/completions", body, lines)
    assert answer.status == 200 and answer.body.endswith(b"data: [DONE]\n\n")


def test_more_connections_than_one_address_may_have(strict: Stack) -> None:
    """The eleventh is closed at once; when another ends, there is room again."""
    eventually(lambda: is_alone(strict))  # those of other tests have ended
    with ExitStack() as held:
        inside = []
        for _ in range(10):
            connection = held.enter_context(socket.create_connection((HOST, strict.daemon.port), 10))
            connection.sendall(get(b"/live"))
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
            inside.append(connection)
        assert not served(strict)
        inside[0].close()
        eventually(lambda: served(strict))
    eventually(lambda: is_alone(strict))


def served(stack: Stack) -> bool:
    """On a busy machine a connection may be reset before it has been seen to be there."""
    try:
        with socket.create_connection((HOST, stack.daemon.port), 10) as connection:
            connection.sendall(get(b"/live"))
            return connection.recv(65536).startswith(b"HTTP/1.1 200 ")
    except ConnectionError:
        return False


def is_alone(stack: Stack) -> bool:
    """Whether there is no connection but the one that asks, which is one too many itself while others are there."""
    try:
        return "llmproxy_client_connections 1.0" in metrics(stack)
    except ConnectionError:
        return False


def test_one_client_with_many_slow_uploads(strict: Stack) -> None:
    """Its fifth is refused, and other projects are served as ever."""
    path = b"/v1/chat/completions"
    slow = post(authorization(strict), b"Content-Length: 100000", body=b"{").replace(b"/anything/v1/echo", path)
    keys = {"openai": "sk-sim-openai"}
    other = strict.manage("POST", "/manage/projects", {"name": "Others", "api_keys": keys})["id"]
    token = strict.manage("POST", "/manage/tokens", {"project_id": other, "name": "other"})["token"]
    with ExitStack() as held:
        for _ in range(4):
            held.enter_context(socket.create_connection((HOST, strict.daemon.port), 10)).sendall(slow)
        # Not by asking until it is refused: the question could take the place of the fourth.
        held_now = 'llmproxy_requests_at_providers{api="openai"} 4.0'
        eventually(lambda: held_now in metrics(strict))
        refused = strict.ask("GET", "/v1/models")
        assert refused.status == 429
        assert refused.json["error"]["code"] == refused.header("X-LLMProxy-Error") == "too_many_open_requests"
        assert strict.ask("GET", "/v1/models", token=token).status == 200
        page = metrics(strict)
        assert 'llmproxy_refusals_total{api="openai",code="too_many_open_requests"}' in page
    eventually(lambda: strict.ask("GET", "/v1/models").status == 200)
    assert "Traceback" not in strict.daemon.output()
