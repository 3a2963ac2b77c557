"""Answers kept in Redis: one process's are the others', and a Redis that fails costs no request."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import HOST, Daemon
from tests.support.redis_server import RedisServer
from tests.support.responses import Response
from tests.support.stack import MANAGEMENT, Stack, eventually

pytestmark = pytest.mark.alone

CACHEABLE = {"X-Sim-Header": "Cache-Control: public, max-age=600"}
CLIENTS, RATE = 10, 200.0
SECONDS = 3.0


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def pair(redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, Daemon]]:
    env = {
        "LLMPROXY_CACHE_BACKEND": "redis",
        "LLMPROXY_CACHE_MAX_OBJECT_BYTES": "8MiB",
        "LLMPROXY_REDIS_URL": redis.url,
        "LLMPROXY_LOGGING_ACCESS": "false",
    }
    with Stack(tmp_path_factory.mktemp("pair"), env=env) as stack, stack.another("second") as second:
        yield stack, second


def got(stack: Stack, path: str, port: int, **headers: str) -> Response:
    return stack.ask("GET", path, headers={**CACHEABLE, **headers}, port=port)


def status(reply: Response) -> str:
    assert reply.status == 200
    return reply.header("X-Cache-Status") or ""


def test_a_store_by_one_is_a_hit_for_the_other(pair: tuple[Stack, Daemon]) -> None:
    stack, second = pair
    before = len(stack.recorded())
    first = got(stack, "/anything/v1/models?n=1", stack.daemon.port)
    assert status(first) in ("miss", "stored")
    eventually(lambda: status(got(stack, "/anything/v1/models?n=1", stack.daemon.port)) == "hit")
    other = got(stack, "/anything/v1/models?n=1", second.port)
    assert (status(other), other.body) == ("hit", first.body)
    assert len(stack.recorded()) - before <= 2


def test_three_megabytes(pair: tuple[Stack, Daemon]) -> None:
    """Byte for byte, by the other process."""
    stack, second = pair
    body = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "x"}]}).encode()
    headers = {"X-Sim-Size": "3000000", "Cache-Control": "public, max-age=600", "Content-Type": "application/json"}

    def asked(port: int) -> Response:
        return stack.ask("POST", "/v1/chat/completions", body, headers, port=port)

    first = asked(stack.daemon.port)
    assert len(first.body) > 3_000_000
    eventually(lambda: status(asked(second.port)) == "hit")
    other = asked(second.port)
    assert (status(other), other.body) == ("hit", first.body)


def test_garbage_is_a_miss(pair: tuple[Stack, Daemon], redis: RedisServer) -> None:
    """Whatever else stands under the keys, answers come from the provider."""
    stack, second = pair
    path = "/anything/v1/models?n=garbage"
    status(got(stack, path, stack.daemon.port))
    eventually(lambda: status(got(stack, path, second.port)) == "hit")
    for garbage in ("", "x", "\0" * 50, "{}" * 2000):
        spoil = "for _, k in ipairs(redis.call('KEYS', 'llmproxy:cache:*')) do redis.call('SET', k, ARGV[1]) end"
        redis.command("EVAL", spoil, "0", garbage)
        assert status(got(stack, path, second.port)) in ("miss", "stored")
        eventually(lambda: status(got(stack, path, stack.daemon.port)) == "hit")


def test_metrics(pair: tuple[Stack, Daemon]) -> None:
    """How Redis does is shown for each use that is made of it."""
    stack, _ = pair
    shown = stack.ask("GET", "/metrics", token=MANAGEMENT).body.decode()
    for use in ("cache", "revocation"):
        assert f'llmproxy_redis_available{{use="{use}"}} 1.0' in shown
        for name in ("errors", "timeouts", "refused"):
            assert f'llmproxy_redis_{name}_total{{use="{use}"}}' in shown


def test_a_wrong_password(redis: RedisServer, tmp_path: Path) -> None:
    """Requests are answered without the cache; the log says why, and not what was tried."""
    redis.command("ACL", "SETUSER", "proxy", "on", ">right", "~*", "+@all")
    url = redis.url.replace("//", "//proxy:hunter2-hunter2@")
    with Stack(tmp_path, env={"LLMPROXY_CACHE_BACKEND": "redis", "LLMPROXY_REDIS_URL": url}) as stack:
        for _ in range(2):
            assert status(got(stack, "/anything/v1/models", stack.daemon.port)) in ("miss", "stored")
        eventually(lambda: "WRONGPASS" in stack.daemon.output())
        assert (
            'llmproxy_redis_available{use="cache"} 0.0' in stack.ask("GET", "/metrics", token=MANAGEMENT).body.decode()
        )
    assert "hunter2" not in stack.daemon.output()


def test_flushed(pair: tuple[Stack, Daemon], redis: RedisServer) -> None:
    stack, second = pair
    path = "/anything/v1/models?n=flushed"
    status(got(stack, path, stack.daemon.port))
    eventually(lambda: status(got(stack, path, second.port)) == "hit")
    redis.command("FLUSHALL")
    assert status(got(stack, path, second.port)) in ("miss", "stored")


class Load:
    """Two hundred requests per second, on kept connections, half of them for what is in the cache.

    @ivar seen: Of each: when it was begun, seconds it took, status, and what the cache said.
    """

    def __init__(self, stack: Stack, port: int) -> None:
        self.stack = stack
        self.port = port
        self.seen: list[tuple[float, float, int, str]] = []
        self.phases: list[tuple[str, float, float]] = []
        self._end = False

    def client(self, number: int) -> None:
        line = HTTPConnection(HOST, self.port, timeout=30)
        headers = {**CACHEABLE, "Authorization": f"Bearer {self.stack.token}"}
        due, count = time.monotonic() + number / RATE, 0
        while not self._end:
            time.sleep(max(0.0, due - time.monotonic()))
            begun = time.monotonic()
            path = f"/anything/v1/models?n={number % 5}" if count % 2 else f"/anything/v1/models?n={number}-{count}"
            line.request("GET", path, headers=headers)
            answer = line.getresponse()
            answer.read()
            said = answer.getheader("X-Cache-Status") or ""
            self.seen.append((begun, time.monotonic() - begun, answer.status, said))
            due, count = due + CLIENTS / RATE, count + 1
        line.close()

    def phase(self, name: str, seconds: float = SECONDS) -> None:
        start = time.monotonic()
        time.sleep(seconds)
        self.phases.append((name, start, time.monotonic()))

    def run(self, act: Any) -> None:
        with ThreadPoolExecutor(CLIENTS) as clients:
            running = [clients.submit(self.client, number) for number in range(CLIENTS)]
            try:
                act()
            finally:
                self._end = True
            for one in running:
                one.result()

    def told(self, name: str) -> tuple[list[float], list[str]]:
        _, start, end = next(phase for phase in self.phases if phase[0] == name)
        seen = [one for one in self.seen if start <= one[0] < end]
        took = sorted(one[1] for one in seen)
        hits = sum(one[3] == "hit" for one in seen)
        print(
            f"{name:>12}: {len(seen) / (end - start):4.0f}/s, {hits:3} hits, p50 {took[len(took) // 2] * 1000:6.1f} ms,"
            f" p99 {took[int(len(took) * 0.99)] * 1000:6.1f} ms, worst {took[-1] * 1000:6.1f} ms"
        )
        return took, [one[3] for one in seen]


@pytest.mark.long("8 s: a Redis that hangs and dies under load holds up nobody")
def test_redis_hangs_and_dies_under_load(pair: tuple[Stack, Daemon], redis: RedisServer) -> None:
    """No request fails, none waits for long, and when Redis is back the cache is too."""
    stack, _ = pair
    load = Load(stack, stack.daemon.port)

    def act() -> None:
        load.phase("warming up", 1.5)
        load.phase("before")
        redis.freeze()
        load.phase("frozen")
        redis.thaw()
        load.phase("thawing", 1.0)
        load.phase("thawed")
        redis.kill()
        load.phase("killed")
        redis.start()
        load.phase("starting", 2.5)
        load.phase("back")

    try:
        load.run(act)
    finally:
        redis.thaw()
    assert {one[2] for one in load.seen} == {200}
    assert len(load.seen) > 2000
    for name, _, _ in load.phases:
        took, said = load.told(name)
        assert took[len(took) // 2] < 0.1, name
        assert took[int(len(took) * 0.99)] < 1.0, name
        if name in ("before", "thawed", "back"):
            assert said.count("hit") > len(said) // 3, name
    warnings = [line for line in stack.daemon.output().splitlines() if "cannot be used" in line]
    assert 1 <= len(warnings) <= 6, warnings


def test_purging(pair: tuple[Stack, Daemon]) -> None:
    """Purged through one process, gone for all; other projects' answers stay."""
    stack, second = pair
    stack.manage("POST", "/manage/cache/purge", {"all": True})
    for number in range(25):
        status(got(stack, f"/anything/v1/models?n=purge-{number}", stack.daemon.port))
    eventually(lambda: stack.manage("GET", "/manage/cache")["entries"] == 25)
    assert stack.manage("POST", "/manage/cache/purge", {"project_id": "nobody"})["removed"] == 0
    assert status(got(stack, "/anything/v1/models?n=purge-7", second.port)) == "hit"
    purged = stack.manage("POST", "/manage/cache/purge", {"api": "anything", "project_id": stack.project})
    assert purged["removed"] == 25
    assert status(got(stack, "/anything/v1/models?n=purge-7", second.port)) in ("miss", "stored")
