"""What is changed or purged is not served from Redis any more, whichever process did it, and whatever Redis does."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.processes import Daemon
from tests.support.redis_server import RedisServer
from tests.support.responses import Response
from tests.support.stack import MANAGEMENT, Stack, eventually

CACHEABLE = {"X-Sim-Header": "Cache-Control: public, max-age=600"}


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def pair(redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, Daemon]]:
    env = {"LLMPROXY_CACHE_BACKEND": "redis", "LLMPROXY_REDIS_URL": redis.url}
    with Stack(tmp_path_factory.mktemp("pair"), env=env) as stack, stack.another("second") as second:
        yield stack, second


def got(stack: Stack, path: str, port: int, **headers: str) -> Response:
    return stack.ask("GET", path, headers={**CACHEABLE, **headers}, port=port)


def is_hit(stack: Stack, path: str, port: int) -> bool:
    """Whether it is stored; it is not stored by asking."""
    status = got(stack, path, port, **{"Cache-Control": "only-if-cached"}).status
    assert status in (200, 504)
    return status == 200


def store(stack: Stack, path: str) -> None:
    assert got(stack, path, stack.daemon.port).status == 200
    eventually(lambda: is_hit(stack, path, stack.daemon.port))


def change(stack: Stack, path: str, port: int) -> None:
    assert stack.ask("PUT", path, b"{}", {"X-Sim-Status": "200"}, port=port).status == 200


def test_an_outage(pair: tuple[Stack, Daemon], redis: RedisServer) -> None:
    """A purge says that it was not done; a change is not forgotten."""
    stack, second = pair
    purged, changed = "/anything/v1/models?n=purged", "/anything/v1/models?n=changed"
    store(stack, purged)
    store(stack, changed)
    redis.freeze()
    try:
        for number in range(4):
            change(stack, changed if not number else f"/anything/v1/models?n={number}", stack.daemon.port)
        reply = stack.ask("POST", "/manage/cache/purge", b'{"all": true}', token=MANAGEMENT)
        assert (reply.status, reply.header("X-LLMProxy-Error")) == (503, "cache_unavailable"), reply.body
    finally:
        redis.thaw()
    eventually(lambda: is_hit(stack, purged, stack.daemon.port))
    assert not is_hit(stack, changed, stack.daemon.port)
    eventually(lambda: not is_hit(stack, changed, second.port))


def test_in_flight_to_another_daemon(pair: tuple[Stack, Daemon]) -> None:
    """What was sent before another daemon purged or changed it is not stored, and serves nobody who asks later."""
    stack, second = pair
    slow = {"X-Sim-Delay": "0.5"}

    def purge(path: str) -> None:
        stack.manage("POST", "/manage/cache/purge", {"all": True})

    for number, forget in enumerate((purge, lambda path: change(stack, path, stack.daemon.port))):
        path = f"/anything/v1/models?n=in-flight-{number}"
        with ThreadPoolExecutor() as clients:
            before = len(stack.recorded())
            first = clients.submit(got, stack, path, second.port, **slow)
            eventually(lambda before=before: len(stack.recorded()) > before)
            forget(path)
            later = got(stack, path, second.port)
            assert (first.result().status, later.header("X-Cache-Status")) == (200, "stored")
        eventually(lambda path=path: is_hit(stack, path, second.port))
