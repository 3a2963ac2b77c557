"""The response cache of a started daemon, in front of a started provider."""

from __future__ import annotations

import hashlib
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import HOST
from tests.support.responses import Response
from tests.support.stack import KEYS, MANAGEMENT, Stack, eventually

CHAT = "/v1/chat/completions"
OPT_IN = {"Cache-Control": "public, max-age=600", "Content-Type": "application/json"}


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    further = "cache: {streams: true, max_object_bytes: 100KB}\n"
    with Stack(tmp_path_factory.mktemp("cached"), further=further) as stack:
        yield stack


def body(name: str, stream: bool = False) -> bytes:
    """A request that no other test makes."""
    asked = {"model": "gpt-4o", "messages": [{"role": "user", "content": name}], "stream": stream}
    return json.dumps(asked).encode()


def calls(stack: Stack, asked: bytes) -> int:
    """How often the provider was asked this."""
    wanted = hashlib.sha256(asked).hexdigest()
    return sum(request["body_sha256"] == wanted for request in stack.recorded())


def ask(stack: Stack, asked: bytes, headers: dict[str, str] | None = None, **kw: Any) -> Response:
    return stack.ask("POST", kw.pop("path", CHAT), asked, {**OPT_IN, **(headers or {})}, **kw)


def test_a_hundred_identical_streams_are_one_call(cached: Stack) -> None:
    """So are those that come while it is under way, and those that come later; all get the same bytes."""
    asked = body("a hundred", stream=True)
    steered = {"X-Sim-Events": "30", "X-Sim-Delay": "0.2,0.05"}

    def client(number: int) -> Response:
        time.sleep(0.0 if number < 70 else (number - 70) * 0.04)  # the last thirty come while it is under way
        return ask(cached, asked, steered)

    with ThreadPoolExecutor(100) as clients:
        got = list(clients.map(client, range(100)))
    assert {reply.status for reply in got} == {200}
    assert len({reply.body for reply in got}) == 1
    assert got[0].body.endswith(b"data: [DONE]\n\n")
    assert calls(cached, asked) == 1
    statuses = [reply.header("X-Cache-Status") for reply in got]
    assert statuses.count("stored") == 1
    assert set(statuses) <= {"stored", "coalesced", "hit"}
    assert statuses.count("coalesced") >= 90
    later = ask(cached, asked, steered)
    assert (later.body, later.header("X-Cache-Status")) == (got[0].body, "hit")
    assert calls(cached, asked) == 1


def test_everything_that_is_bytes_comes_back_as_bytes(cached: Stack) -> None:
    """Gzip, binary, and JSON with whatever is in it."""
    for name, path, headers in (
        ("gzip", CHAT, {"X-Sim-Gzip": "1", "Accept-Encoding": "gzip"}),
        ("echo", CHAT, {"X-Sim-Echo": "1", "Content-Type": "application/octet-stream"}),
        ("embeddings", "/v1/embeddings", {}),
    ):
        asked = body(name) if path == CHAT else json.dumps({"model": "e", "input": name}).encode()
        first, second = (ask(cached, asked, headers, path=path) for _ in range(2))
        assert (first.header("X-Cache-Status"), second.header("X-Cache-Status")) == ("stored", "hit"), name
        assert first.body == second.body
        assert first.header("Content-Encoding") == second.header("Content-Encoding")
        assert first.header("X-Request-ID") != second.header("X-Request-ID")
        assert calls(cached, asked) == 1


def test_a_hit_costs_no_use_and_is_counted(cached: Stack) -> None:
    """A token that is good for one request gets any number of hits, and they are told beside its requests."""
    asked = body("a token with one use")
    token = cached.new_token(max_requests=1)
    assert ask(cached, asked, token=token).header("X-Cache-Status") == "stored"
    for _ in range(3):
        assert ask(cached, asked, token=token).header("X-Cache-Status") == "hit"
    assert ask(cached, body("another"), token=token).header("X-LLMProxy-Error") == "quota_exceeded"
    listed = cached.manage("GET", f"/manage/tokens?project_id={cached.project}&limit=1000")["data"]
    token_id = next(t["id"] for t in listed if token.startswith(t["prefix"]))
    assert eventually(lambda: cached.manage("GET", f"/manage/tokens/{token_id}")["cache_hits"] == 3)
    assert cached.manage("GET", f"/manage/tokens/{token_id}")["request_count"] == 1
    cached.manage("DELETE", f"/manage/tokens/{token_id}")
    assert ask(cached, asked, token=token).status == 401


def test_two_projects_are_always_separate(cached: Stack) -> None:
    """Whatever the second one sends along."""
    asked = body("two projects")
    assert ask(cached, asked).header("X-Cache-Status") == "stored"
    other = cached.manage("POST", "/manage/projects", {"name": "Other", "api_keys": KEYS})["id"]
    token = cached.manage("POST", "/manage/tokens", {"project_id": other, "name": "other"})["token"]
    before = calls(cached, asked)
    tries = ({}, {"X-Project-ID": cached.project}, {"X-Cache-Key": "x"}, {"OpenAI-Project": cached.project})
    for number, headers in enumerate(tries):
        mine = body(f"two projects, {number}")
        assert ask(cached, mine).header("X-Cache-Status") == "stored"
        assert ask(cached, mine, headers, token=token).header("X-Cache-Status") == "stored"
        got = ask(cached, asked, {**headers, "Cache-Control": "no-store"}, token=token)
        assert got.header("X-Cache-Status") == "bypass"
        got = ask(cached, asked, {**headers, "Cache-Control": "public, max-age=1, no-cache"}, token=token)
        assert got.header("X-Cache-Status") == "stored"
    assert calls(cached, asked) == before + 2 * len(tries)
    assert ask(cached, asked).header("X-Cache-Status") == "hit"


@pytest.mark.parametrize("fault", ["reset", "truncate", "stall", "no-terminal-chunk", "error-event"])
def test_a_stream_that_is_not_whole_is_never_kept(cached: Stack, fault: str) -> None:
    """Half an answer is never given as an answer."""
    asked = body(f"cut by {fault}", stream=True)
    steered = {"X-Sim-Fault": f"{fault}; after=3", "X-Sim-Events": "8"}
    if fault == "stall":
        leave_in_the_middle(cached, asked, steered)
    else:
        try:
            ask(cached, asked, steered)
        except Exception as e:
            assert "Incomplete" in type(e).__name__ or isinstance(e, OSError), e
    assert calls(cached, asked) == 1
    whole = ask(cached, asked)
    assert whole.header("X-Cache-Status") == "stored"
    assert whole.body.endswith(b"data: [DONE]\n\n")
    assert calls(cached, asked) == 2


@pytest.mark.parametrize("fault", ["reset", "truncate"])
def test_a_body_that_is_cut_is_never_kept(cached: Stack, fault: str) -> None:
    asked = body(f"a body cut by {fault}")
    try:
        ask(cached, asked, {"X-Sim-Fault": f"{fault}; after=0", "X-Sim-Size": "50000"})
    except Exception as e:
        assert "Incomplete" in type(e).__name__ or isinstance(e, OSError), e
    assert ask(cached, asked).header("X-Cache-Status") == "stored"


def test_what_is_too_large_is_never_kept(cached: Stack) -> None:
    """It passes as it is, every time."""
    for stream in (False, True):
        asked = body(f"too large, stream: {stream}", stream)
        for number in (1, 2):
            got = ask(cached, asked, {"X-Sim-Size": "200000"})
            assert len(got.body) > 200_000
            assert got.header("X-Cache-Status") in ("miss", "stored")  # a stream turns out to be, after its head
            assert calls(cached, asked) == number
    assert cached.manage("GET", "/manage/cache")["entries"] >= 1


def test_purging_removes_what_was_kept(cached: Stack) -> None:
    """And says how much that was."""
    asked = body("to be purged")
    ask(cached, asked)
    assert ask(cached, asked).header("X-Cache-Status") == "hit"
    before = cached.manage("GET", "/manage/cache")
    assert before["hits"] > 0
    exact = {"api": "openai", "project_id": cached.project, "path": CHAT, "body": asked.decode(),
             "headers": {"Content-Type": "application/json"}}  # fmt: skip
    assert cached.manage("POST", "/manage/cache/purge", {**exact, "body": "{}"})["removed"] == 0
    assert cached.manage("POST", "/manage/cache/purge", exact)["removed"] == 1
    assert ask(cached, asked).header("X-Cache-Status") == "stored"
    removed = cached.manage("POST", "/manage/cache/purge", {"all": True})["removed"]
    assert removed == before["entries"]
    assert cached.manage("GET", "/manage/cache")["entries"] == 0
    assert ask(cached, asked).header("X-Cache-Status") == "stored"
    log = (cached.home / "audit.jsonl").read_text()
    assert '"action":"cache.purge"' in log.replace(" ", "")


def test_the_counters_tell_all_of_it(cached: Stack) -> None:
    """In Prometheus' text, for each API."""
    text = cached.ask("GET", "/metrics", token=MANAGEMENT).body.decode()
    for name in ("cache_hits_total", "cache_misses_total", "cache_stores_total", "cache_entries", "cache_bytes"):
        assert f"llmproxy_{name}" in text
    assert 'llmproxy_cache_hits_total{api="openai"}' in text


def leave_in_the_middle(stack: Stack, asked: bytes, headers: dict[str, str]) -> None:
    """Ask, read a little, and go."""
    lines = {
        **OPT_IN,
        **headers,
        "Host": "x",
        "Authorization": f"Bearer {stack.token}",
        "Content-Length": str(len(asked)),
    }
    head = f"POST {CHAT} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items()) + "\r\n"
    with socket.create_connection((HOST, stack.daemon.port), 10) as client:
        client.sendall(head.encode() + asked)
        assert client.recv(100)
        time.sleep(0.2)


def test_without_a_cache_nothing_is_kept(tmp_path: Path) -> None:
    """C{cache.enabled: false}."""
    with Stack(tmp_path, further="cache: {enabled: false}\n") as stack:
        asked = body("no cache")
        for number in (1, 2):
            assert ask(stack, asked).header("X-Cache-Status") == "disabled"
            assert calls(stack, asked) == number
