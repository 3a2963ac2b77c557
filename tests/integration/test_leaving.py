"""A client that leaves stops its provider, and a provider that breaks off is seen to have done so."""

from __future__ import annotations

import json
import socket
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.support.processes import HOST
from tests.support.scripted_provider import CLOSE, ScriptedProvider
from tests.support.stack import MANAGEMENT, SETTINGS, Stack, eventually

CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "x"}]}


def opened(stack: Stack, body: bytes, *headers: str, length: int | None = None) -> socket.socket:
    """A request on a connection of its own, as far as C{body}."""
    connection = socket.create_connection((HOST, stack.daemon.port), 10)
    head = [
        "POST /v1/chat/completions HTTP/1.1",
        f"Host: {HOST}",
        f"Authorization: Bearer {stack.token}",
        "Content-Type: application/json",
        f"Content-Length: {len(body) if length is None else length}",
        *headers,
    ]
    connection.sendall(("\r\n".join(head) + "\r\n\r\n").encode() + body)
    return connection


def left_after(stack: Stack, *request: Any, begun: bool, **more: Any) -> float:
    """The seconds until the provider notices that the client has closed; the best of three, for machines are noisy.

    @param begun: Whether the client first waits for the beginning of the answer.
    """
    return min(_left_after(stack, *request, begun=begun, **more) for _ in range(3))


def _left_after(stack: Stack, *request: Any, begun: bool, **more: Any) -> float:
    before = len(stack.recorded())
    connection = opened(stack, *request, **more)
    if begun:
        assert connection.recv(65536)
    eventually(lambda: len(stack.recorded()) > before)
    closed = time.time()
    connection.close()
    entry: dict[str, Any] = eventually(lambda: (e := stack.last())["left_at"] and e)
    return float(entry["left_at"]) - closed


def body(**more: Any) -> bytes:
    return json.dumps({**CHAT, **more}).encode()


def test_while_the_upload_is_under_way(stack: Stack) -> None:
    assert left_after(stack, b'{"model": "gpt-4o", ', length=100_000, begun=False) < 0.1


def test_before_the_answers_head(stack: Stack) -> None:
    assert left_after(stack, body(), "X-Sim-Fault: stall-head", begun=False) < 0.1


def test_its_body_is_held_no_longer(stack: Stack) -> None:
    """Of requests that the fast path knows, as of all others: what is held counts against everybody."""
    long, slow = body(user="x" * 8000), "X-Sim-Delay: 0.3"
    for _ in range(3):
        with opened(stack, long, slow, "Connection: close") as connection:
            assert connection.makefile("rb").read().startswith(b"HTTP/1.1 200 ")
    for _ in range(5):
        before = len(stack.recorded())
        with opened(stack, long, slow, "Connection: close"):
            eventually(lambda before=before: len(stack.recorded()) > before)
    eventually(lambda: stack.metric("buffered_bytes") == 0)


def test_in_the_middle_of_a_stream(stack: Stack) -> None:
    assert left_after(stack, body(stream=True), "X-Sim-Events: 500", "X-Sim-Delay: 0,0.05", begun=True) < 0.1


def test_in_the_middle_of_an_answer_that_is_no_stream(stack: Stack) -> None:
    assert left_after(stack, body(), "X-Sim-Fault: stall", "X-Sim-Size: 20000", begun=True) < 0.1


@pytest.mark.parametrize("fault", ["reset", "truncate", "no-terminal-chunk"])
def test_a_provider_that_breaks_off_leaves_a_visibly_incomplete_answer(stack: Stack, fault: str) -> None:
    received = b""
    with opened(stack, body(stream=True), f"X-Sim-Fault: {fault}") as connection, suppress(ConnectionResetError):
        while piece := connection.recv(65536):
            received += piece
    assert received.startswith(b"HTTP/1.1 200 ")
    assert not received.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("fault", ["garbage", "reset-head", "bad-length", "double-length"])
def test_a_provider_that_does_not_speak_http_is_one_502(stack: Stack, fault: str) -> None:
    reply = stack.ask("POST", "/v1/chat/completions", body(), {"X-Sim-Fault": fault})
    assert reply.status == 502
    assert reply.header("X-LLMProxy-Error") in ("upstream_protocol_error", "upstream_unreachable")
    assert reply.json["error"]["message"]


def test_each_piece_of_a_stream_arrives_when_it_was_sent(stack: Stack) -> None:
    """Twenty events, 50 ms apart: they come one by one, not together at the end."""
    connection = opened(stack, body(stream=True), "X-Sim-Events: 20", "X-Sim-Delay: 0,0.05")
    arrivals = []
    while b"[DONE]" not in (piece := connection.recv(65536)):
        assert piece
        arrivals.append(time.monotonic())
    connection.close()
    gaps = [later - earlier for earlier, later in pairwise(arrivals)]
    assert len([gap for gap in gaps if gap > 0.02]) >= 15


REQUESTS = {
    "live": b"GET /live HTTP/1.1\r\nHost: x\r\n",
    "without a token": b"GET /v1/models HTTP/1.1\r\nHost: x\r\n",
    "metrics": b"GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n" % MANAGEMENT.encode(),
}


METRICS = pytest.param("metrics", marks=pytest.mark.long("1 s: the metrics page, as others that are answered here"))


@pytest.mark.parametrize("what", [*(each for each in REQUESTS if each != "metrics"), METRICS])
@pytest.mark.parametrize("half", [True, False], ids=["half-closed", "open"])
def test_more_requests_at_once_than_are_read_ahead(stack: Stack, what: str, half: bool) -> None:
    """A client that has sent all it will send gets all its responses."""
    request = REQUESTS[what] + b"X: " + b"a" * 1000 + b"\r\n"
    sent = (request + b"\r\n") * 299 + request + b"Connection: close\r\n\r\n"
    received = []
    with socket.create_connection((HOST, stack.daemon.port), 30) as client:

        def send() -> None:
            client.sendall(sent)
            if half:
                client.shutdown(socket.SHUT_WR)

        sender = Thread(target=send)
        sender.start()
        while data := client.recv(1 << 20):
            received.append(data)
        sender.join(30)
    status = b"HTTP/1.1 401 " if what == "without a token" else b"HTTP/1.1 200 "
    assert b"".join(received).count(status) == 300


def rest(connection: socket.socket) -> bytes:
    """What still comes until the connection ends, however it does."""
    got = b""
    with suppress(ConnectionResetError):
        while more := connection.recv(65536):
            got += more
    return got


@pytest.mark.parametrize(
    ("framing", "pieces", "seconds"),
    [
        (b"Content-Length: 10", (b"first", b"second"[1:]), 15.0),
        (b"Transfer-Encoding: chunked", (b"5\r\nfirst\r\n", b"6\r\nsecond\r\n0\r\n\r\n"), 1.0),
    ],
    ids=["with a length", "chunked"],
)
def test_half_closed_in_the_middle_of_a_response(
    tmp_path: Path, framing: bytes, pieces: tuple[bytes, bytes], seconds: float
) -> None:
    """With a length the client counts as gone, long before its provider goes on; chunked it gets the rest."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n" + framing + b"\r\n\r\n"
    with ScriptedProvider({"completions": [head + pieces[0], seconds, pieces[1], CLOSE]}) as provider:

        class Behind(Stack):
            settings = SETTINGS.replace("{provider}", f"http://{HOST}:{provider.port}")

        with Behind(tmp_path) as stack, opened(stack, body(), "Connection: close") as client:
            client.settimeout(30)
            got = b""
            while b"first" not in got:
                got += client.recv(65536)
            client.shutdown(socket.SHUT_WR)
            chunked = b"chunked" in framing
            assert (b"second" in rest(client)) == chunked

            def outcomes() -> list[str]:
                return [event["outcome"] for event in stack.events()]

            eventually(lambda: outcomes()[-1:] == ["complete" if chunked else "cancelled"], 20)


def test_half_closed_in_the_middle_of_an_upload(stack: Stack) -> None:
    """Nothing more of it will come: the client is let go, without a response."""
    with opened(stack, b"{", length=1000) as client:
        client.settimeout(30)
        client.shutdown(socket.SHUT_WR)
        assert b"HTTP/1.1 200" not in rest(client)
