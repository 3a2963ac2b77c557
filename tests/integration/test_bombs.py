"""Nothing that a client sends holds the reactor: bodies and heads that take long to read, through the daemon."""

from __future__ import annotations

import gzip
import json
import re
import socket
import time
import urllib.request
from collections.abc import Iterator

import pytest

from tests.support.stack import MANAGEMENT, Stack

MILLION = 1_000_000
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
MULTIPART = {"Content-Type": "multipart/form-data; boundary=b"}
GZIP = {"Content-Encoding": "gzip"}
PART = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n'

BOMBS: dict[str, tuple[bytes, dict[str, str]]] = {
    "escape and 1.4 million objects": (b'{"a":"\\u0041","b":[' + b"{}," * 1_400_000 + b"0]}", {}),
    "270,000 floats": (b'{"a":[' + b"0.12345678901," * 270_000 + b"0]}", {}),
    "250,000 small objects": (b'{"a":[' + b'{"b":1},' * 250_000 + b"0]}", {}),
    "nested lists": (b'{"a":[' + b"[[[[1]]]]," * 300_000 + b"0]}", {}),
    "branching lists": (b'{"a":[' + b"[[[],[]],[[],[]]]," * 200_000 + b"0]}", {}),
    "a million members": (b"{" + b'"":"",' * MILLION + b'"a":0}', {}),
    "deep": (b'{"a":' * MILLION, {}),
    "deep lists": (b"[" * 4 * MILLION, {}),
    "escapes": (b'{"a":"' + b'\\"\\n' * MILLION + b'"}', {}),
    "unicode escapes": (b'{"a":"' + b"\\u00e9" * 700_000 + b'"}', {}),
    "digits": (b'{"a":' + b"9" * 4 * MILLION + b"}", {}),
    "quotes": (b'"' * 4 * MILLION, {}),
    "white space": (b" " * 4 * MILLION + b"{}", {}),
    "beginnings of media": (b'{"data":"' + b'","data":"' * 400_000 + b'"}', {}),
    "short words": (b'{"a":"' + b"a b " * MILLION + b'"}', {}),
    "members within what is kept": (b'{"generationConfig":{' + b'"a":{},' * 30_000 + b'"b":1}}', {}),
    "tools": (b'{"tools":[' + b"{}," * 80_000 + b"0]}", {}),
    "ampersands": (b"&" * 4 * MILLION, FORM),
    "fields": (b"a=%61&" * 700_000, FORM),
    "parts": (PART * 2_000, MULTIPART),
    "boundaries": (b"\r\n--" * 20_000, MULTIPART),
    "gzip of brackets": (gzip.compress(b"[" * 100 * MILLION), GZIP),
    "gzip of lists": (gzip.compress(b'{"a":[' + b"[[[[1]]]]," * 2 * MILLION), GZIP),
    "gzip of nothing": (gzip.compress(bytes(100 * MILLION)), GZIP),
}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("bombs"), "param_whitelist: {temperature: ['*']}") as started:
        while not lag(started)[0]:
            time.sleep(0.2)
        yield started


def lag(stack: Stack) -> tuple[float, float]:
    """How often the reactor was looked at, and the latest that it was so far."""
    request = urllib.request.Request(f"{stack.url}/metrics", headers={"Authorization": f"Bearer {MANAGEMENT}"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        text = answer.read().decode()
    count, longest = (
        re.search(rf"^llmproxy_reactor_lag_{name} (\S+)$", text, re.MULTILINE)
        for name in ("seconds_count", "longest_seconds")
    )
    assert count is not None and longest is not None
    return float(count[1]), float(longest[1])


@pytest.mark.alone
def test_bodies(stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    """With a budget, with a list of models, and with neither; some 20 ms at a time on a quiet machine."""
    tokens = [
        stack.new_token(budget_usd="1/day"),
        stack.new_token(models=["gpt-4o"]),
        stack.new_token(tokens_per_minute=10_000),
        stack.token,
    ]
    seen: dict[str, float] = {}
    for name, (body, headers) in BOMBS.items():
        for token in tokens:
            before = lag(stack)[1]
            path = "/anything/v1/nothing/there" if token == stack.token else "/openai/v1/chat/completions"
            status = stack.ask("POST", path, body, headers, token=token).status
            assert status < 600, name
            time.sleep(0.1)
            after = lag(stack)[1]
            if after > before:
                seen[name] = after
    looked, longest = lag(stack)
    assert looked > 20
    with capsys.disabled():
        print(f"\nlongest stall {longest * 1000:.0f} ms, looked at {looked:.0f} times; new worst by:", json.dumps(seen))
    assert longest < 0.2, seen


@pytest.mark.alone
def test_heads(stack: Stack) -> None:
    """Requests with long heads that are refused, many at once, where many providers' keys are known."""
    for number in range(100):
        key = f"{number:032x}{number * 7919:032x}"
        stack.manage("POST", "/manage/projects", {"name": f"p{number}", "api_keys": {"openai": key}})
    head = b"GET /%b HTTP/1.1\r\nHost: x\r\nUser-Agent: %b\r\nX-A: %b\r\n\r\n" % (
        b"0f" * 8000,
        b"a1" * 4000,
        b"b" * 30_000,
    )
    before = lag(stack)[1]
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", stack.daemon.port), 10) as peer:
            peer.sendall(head * 20)
            got = b""
            while got.count(b"HTTP/1.1 ") < 20 and (data := peer.recv(65_536)):
                got += data
    time.sleep(0.2)
    longest = lag(stack)[1]
    assert longest == before or longest < 0.2, longest


def test_others_are_served_meanwhile(stack: Stack) -> None:
    body, _ = BOMBS["gzip of lists"]
    with socket.create_connection(("127.0.0.1", stack.daemon.port), 10) as peer:
        peer.sendall(
            b"POST /openai/v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\n"
            b"Authorization: Bearer %b\r\nContent-Length: %d\r\n\r\n"
            % (stack.new_token(budget_usd="1/day").encode(), len(body))
            + body
        )
        for _ in range(20):
            began = time.monotonic()
            assert stack.ask("GET", "/live").status == 200
            assert time.monotonic() - began < 2
        assert peer.recv(65_536).startswith(b"HTTP/1.1 4")
