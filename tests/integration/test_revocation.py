"""What is revoked on one process is refused by every other within a second."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from tests.support.postgres import PostgreSQL
from tests.support.processes import HOST
from tests.support.proxy_case import FAST_PATH
from tests.support.redis_server import RedisServer
from tests.support.stack import KEYS, Stack, eventually
from tests.support.suspending import suspend
from tests.support.workers import WorkerStack

pytestmark = pytest.mark.alone

PROCESSES = 4
KNOWN_AFTER = 2  # requests, after which the next one takes the fast path
BODY = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"Hello"}]}'
ROUNDS = int(os.environ.get("LLMPROXY_TEST_ROUNDS", "12" if os.environ.get("CI") else "3"))


def ask(connection: HTTPConnection, token: str) -> int:
    """The status of a request as most are: one that may take the fast path."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    connection.request("POST", "/v1/chat/completions", BODY, headers)
    response = connection.getresponse()
    response.read()
    return response.status


class Fleet:
    """Four daemons on one store, each with a client that asks it all the time."""

    def __init__(self, stack: Stack, ports: list[int]) -> None:
        self.stack = stack
        self.ports = ports

    def status(self, port: int, token: str) -> int:
        connection = HTTPConnection(HOST, port, timeout=10)
        try:
            return ask(connection, token)
        finally:
            connection.close()

    def new_token(self, **more: Any) -> tuple[str, str]:
        made = self.stack.manage("POST", "/manage/tokens", {"project_id": self.stack.project, "name": "x", **more})
        return made["id"], made["token"]

    def until_refused(self, token: str, revoke: Any) -> list[float]:
        """Seconds from the moment when the revocation was answered until each process refused the token."""
        for _ in range(KNOWN_AFTER):
            assert [self.status(port, token) for port in self.ports] == [200] * len(self.ports)

        def watch(port: int) -> float:
            end = time.monotonic() + 10
            with closing(HTTPConnection(HOST, port, timeout=10)) as connection:
                while ask(connection, token) == 200:
                    assert time.monotonic() < end, "still accepted after ten seconds"
                    time.sleep(0.005)
            return time.monotonic()

        with ThreadPoolExecutor(len(self.ports)) as clients:
            watching = [clients.submit(watch, port) for port in self.ports]
            revoke()
            revoked = time.monotonic()
            return [max(0.0, each.result() - revoked) for each in watching]


def fleet(home: Path, env: dict[str, str]) -> Iterator[Fleet]:
    with Stack(home, env=env) as stack, ExitStack() as others:
        ports = [stack.daemon.port]
        ports += [others.enter_context(stack.another(f"daemon{n}")).port for n in range(1, PROCESSES)]
        yield Fleet(stack, ports)


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    yield from fleet(tmp_path_factory.mktemp("without"), {})


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def together(redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    env = {"LLMPROXY_CACHE_BACKEND": "redis", "LLMPROXY_REDIS_URL": redis.url}
    yield from fleet(tmp_path_factory.mktemp("together"), env)


def told(name: str, last: list[float]) -> None:
    last.sort()
    p50, p99 = last[len(last) // 2], last[min(len(last) - 1, int(len(last) * 0.99))]
    print(f"{name}: until the last of {PROCESSES} refuses, {len(last)} rounds: p50 {p50:.3f} s, p99 {p99:.3f} s")


def measured(name: str, fleet: Fleet, rounds: int = ROUNDS) -> list[float]:
    last = []
    for number in range(rounds):
        token_id, token = fleet.new_token()
        time.sleep(0.037 * (number % 11))  # at another moment between two looks each time
        last.append(
            max(fleet.until_refused(token, lambda i=token_id: fleet.stack.manage("DELETE", f"/manage/tokens/{i}")))
        )
    told(name, last)
    return last


def test_a_token_without_redis(without: Fleet) -> None:
    """Nor does one get through whose requests have taken the fast path."""
    before = without.stack.metric("fast_path_requests_total")
    assert max(measured("without Redis", without)) < 1.0
    is_fast = os.environ.get(FAST_PATH) != "false"
    assert (without.stack.metric("fast_path_requests_total") > before) == is_fast


def test_a_token_with_redis(together: Fleet) -> None:
    """With Redis it is a matter of milliseconds, unless the machine is busy."""
    last = measured("with Redis", together)
    assert max(last) < 1.0
    assert sorted(last)[len(last) // 2] < 0.2


def seldom(fleet: Fleet) -> None:
    """Have tokens cached for longer than any process may go without a word of the store, and see that they are used on,
    each request by the fast path, until something becomes of them, which is known within the same second."""
    manage = fleet.stack.manage
    project = manage("POST", "/manage/projects", {"name": "Seldom", "api_keys": KEYS})["id"]
    (revoked, first), (rotated, second), (_, third) = [fleet.new_token() for _ in range(3)]
    _, fourth = fleet.new_token(project_id=project)
    ends = time.time() + 12.0
    _, fifth = fleet.new_token(expires_at=datetime.fromtimestamp(ends, UTC).isoformat())
    tokens = (first, second, third, fourth, fifth)
    time.sleep(1.0)  # that they were made is no news any more, for which they would be looked up again

    def all_served(times: int) -> bool:
        return {fleet.status(port, token) for _ in range(times) for token in tokens for port in fleet.ports} == {200}

    assert all_served(KNOWN_AFTER + 3)  # so that each worker behind a port knows their heads
    time.sleep(5.5)
    before = fleet.stack.metric("fast_path_requests_total")
    assert all_served(1)
    served = fleet.stack.metric("fast_path_requests_total") - before
    if os.environ.get(FAST_PATH) != "false":
        assert served == len(tokens) * fleet.ports.count(fleet.stack.daemon.port)
    for token, change in (
        (first, lambda: manage("DELETE", f"/manage/tokens/{revoked}")),
        (second, lambda: manage("POST", f"/manage/tokens/{rotated}/rotate", {"grace": "0s"})),
        (fourth, lambda: manage("PATCH", f"/manage/projects/{project}", {"active": False})),
    ):
        assert max(fleet.until_refused(token, change)) < 1.0
    assert {fleet.status(port, third) for port in fleet.ports} == {200}
    time.sleep(max(ends - time.time(), 0.0))
    assert {fleet.status(port, fifth) for port in fleet.ports} == {401}


@pytest.mark.long("14 s: waits until what is cached is old")
def test_tokens_that_are_used_seldom(without: Fleet) -> None:
    seldom(without)


@pytest.mark.long("20 s: the same by workers, on PostgreSQL")
def test_tokens_that_are_used_seldom_with_workers(tmp_path: Path, postgres: PostgreSQL) -> None:
    env = {"LLMPROXY_STORE_URL": postgres.migrated()}
    with WorkerStack(tmp_path, 2, env=env) as stack, stack.another("other") as other:
        eventually(lambda: "2 of 2 workers" in other.output(), 60)
        seldom(Fleet(stack, [stack.daemon.port] * 4 + [other.port] * 4))


@pytest.mark.long("2 s: a project is followed as its tokens are")
def test_a_project(without: Fleet) -> None:
    """Deactivated, made active again, all its tokens revoked: every process follows."""
    made = without.stack.manage("POST", "/manage/projects", {"name": "Other", "api_keys": KEYS})
    _, token = without.new_token(project_id=made["id"])
    path = f"/manage/projects/{made['id']}"
    assert max(without.until_refused(token, lambda: without.stack.manage("PATCH", path, {"active": False}))) < 1.0
    without.stack.manage("PATCH", path, {"active": True})
    for port in without.ports:
        eventually(lambda port=port: without.status(port, token) == 200, 1.5)
    assert max(without.until_refused(token, lambda: without.stack.manage("POST", f"{path}/tokens/revoke"))) < 1.0


@pytest.mark.long("2 s: within a second without an answer of Redis, as without Redis")
def test_redis_hangs(together: Fleet, redis: RedisServer) -> None:
    """Then the store alone tells, within the same second."""
    redis.freeze()
    try:
        assert max(measured("with a Redis that hangs", together, min(ROUNDS, 4))) < 1.0
    finally:
        redis.thaw()


@pytest.mark.long("3 s: revoked within a second before and after Redis is killed, in eight rounds")
def test_redis_is_killed(together: Fleet, redis: RedisServer) -> None:
    redis.kill()
    assert max(measured("with a Redis that is gone", together, 4)) < 1.0
    redis.start()
    time.sleep(3)
    last = measured("with a Redis that is back", together, 4)
    assert sorted(last)[1] < 0.2


@pytest.mark.long("2 s: one that was stopped, as one that was not told")
def test_a_process_that_was_away(without: Fleet) -> None:
    """One that was stopped for a while sees what it has missed as soon as it goes on."""
    token_id, token = without.new_token()
    sleeper = without.stack.another("sleeper")
    with sleeper:
        assert without.status(sleeper.port, token) == 200
        suspend(sleeper.pid, without.stack.home / "llmproxy.db")
        without.stack.manage("DELETE", f"/manage/tokens/{token_id}")
        time.sleep(1.0)
        os.kill(sleeper.pid, signal.SIGCONT)
        eventually(lambda: without.status(sleeper.port, token) == 401, 1.0)


@pytest.mark.long("3 s: the store goes and comes back while tokens are revoked")
def test_the_store_is_gone(tmp_path: Path, postgres: PostgreSQL) -> None:
    """For a few seconds tokens are still believed, however long they might be remembered; then none is."""
    env = {"LLMPROXY_STORE_URL": postgres.migrated(), "LLMPROXY_STORE_TOKEN_CACHE_TTL": "10m"}
    with Stack(tmp_path, env=env) as stack:
        for _ in range(15):  # until the poll has seen that this token was made, and forgotten it once
            assert stack.ask("GET", "/v1/models").status == 200
            time.sleep(0.1)
        there = time.monotonic()
        with postgres.stopped():  # stopping itself takes some time: the store is gone somewhere within it
            gone = time.monotonic()
            while (reply := stack.ask("GET", "/v1/models")).status == 200:
                assert time.monotonic() - gone < 30
                time.sleep(0.1)
            refused = time.monotonic()
            assert (reply.status, reply.header("X-LLMProxy-Error")) == (503, "store_unavailable")
            assert refused - there > 3 and refused - gone < 15, (refused - there, refused - gone)
        eventually(lambda: stack.ask("GET", "/v1/models").status == 200, 60)
