"""A client that leaves stops its provider, and a provider that breaks off is seen to have done so."""

from __future__ import annotations

import json
import socket
import time
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest

from tests.processes import HOST
from tests.stack import Stack, eventually

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


def left_after(stack: Stack, connection: socket.socket, before: int) -> float:
    """Close it; the seconds until the provider noticed."""
    eventually(lambda: len(stack.recorded()) > before)
    closed = time.time()
    connection.close()
    entry: dict[str, Any] = eventually(lambda: (e := stack.last())["left_at"] and e)
    return float(entry["left_at"]) - closed


def body(**more: Any) -> bytes:
    return json.dumps({**CHAT, **more}).encode()


@pytest.fixture
def before(stack: Stack) -> int:
    return len(stack.recorded())


def test_while_the_upload_is_under_way(stack: Stack, before: int) -> None:
    connection = opened(stack, b'{"model": "gpt-4o", ', length=100_000)
    assert left_after(stack, connection, before) < 0.1


def test_before_the_answers_head(stack: Stack, before: int) -> None:
    connection = opened(stack, body(), "X-Sim-Fault: stall-head")
    assert left_after(stack, connection, before) < 0.1


def test_in_the_middle_of_a_stream(stack: Stack, before: int) -> None:
    connection = opened(stack, body(stream=True), "X-Sim-Events: 500", "X-Sim-Delay: 0,0.05")
    assert b"data:" in connection.recv(65536) + connection.recv(65536)
    assert left_after(stack, connection, before) < 0.1


def test_in_the_middle_of_an_answer_that_is_no_stream(stack: Stack, before: int) -> None:
    connection = opened(stack, body(), "X-Sim-Fault: stall", "X-Sim-Size: 20000")
    assert connection.recv(65536)
    assert left_after(stack, connection, before) < 0.1


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
