"""Redis servers that may evict limits, and started daemons."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.redis_server import RedisServer
from tests.support.stack import Stack, eventually

REASON = "it may evict limits (maxmemory-policy {})"
FULL = ("--maxmemory", "3mb")


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Callable[..., RedisServer]]:
    with ExitStack() as running:
        numbers = iter(range(9))
        yield lambda *options: running.enter_context(RedisServer(tmp_path / f"redis-{next(numbers)}", *options))


def stack(home: Path, **limits: object) -> Stack:
    return Stack(home, further=f"limits: {json.dumps({'backend': 'redis', **limits})}\n")


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_it_is_refused(tmp_path: Path, redis: Callable[..., RedisServer], policy: str) -> None:
    """The start ends with one sentence that says what to do; the same server without a bound is welcome."""
    server = redis(*FULL, "--maxmemory-policy", policy)
    running = stack(tmp_path, redis_url=server.url)
    with running.simulator:
        with pytest.raises(AssertionError, match="ended with 1"):
            running.daemon.start()
        said = [line for line in running.daemon.output().splitlines() if "Cannot start" in line]
        assert len(said) == 1 and REASON.format(policy) in said[0] and "limits.redis_url" in said[0], said
        server.command("CONFIG", "SET", "maxmemory", "0")
        with running.daemon:
            pass


def test_another_one_for_the_cache(tmp_path: Path, redis: Callable[..., RedisServer]) -> None:
    """It may evict what it likes; what each is for is where the settings say."""
    cache, limits = redis(*FULL, "--maxmemory-policy", "allkeys-lru"), redis()
    further = f"cache: {{backend: redis, redis_url: '{cache.url}', default_ttl: 60s}}\n"
    further += f"limits: {{backend: redis, redis_url: '{limits.url}'}}\n"
    with Stack(tmp_path, further=further) as running:
        token = running.new_token(requests_per_minute=5)
        assert [running.ask("GET", "/v1/models", token=token).status for _ in range(2)] == [200, 200]
        eventually(lambda: b"cache:" in cache.command("KEYS", "*"))
        assert b"limits:" in limits.command("KEYS", "*") and b"cache:" not in limits.command("KEYS", "*")
        assert b"limits:" not in cache.command("KEYS", "*")


def test_it_is_allowed(tmp_path: Path, redis: Callable[..., RedisServer]) -> None:
    """It is used, with a warning; and although it drops what is counted, ten in a minute are ten."""
    server = redis(*FULL, "--maxmemory-policy", "allkeys-random")
    with stack(tmp_path, redis_url=server.url, allow_eviction=True) as running:
        assert "Redis may evict limits (allkeys-random)" in running.daemon.output()
        token = running.new_token(requests_per_minute=10)
        statuses: list[int] = []
        for number in range(60):
            statuses.append(running.ask("GET", "/v1/models", token=token).status)
            for filling in range(4):  # what others keep there
                server.command("SET", f"filling:{number}:{filling}", "x" * 200_000)
        assert b"evicted_keys:0\r\n" not in server.command("INFO", "stats")
        assert statuses.count(200) == 10, statuses


def test_its_policy_is_changed(tmp_path: Path, redis: Callable[..., RedisServer]) -> None:
    """A server that may evict from now on is looked at when it is connected to again: limits go by their word."""
    server = redis()
    with stack(tmp_path, redis_url=server.url, on_loss={"requests_per_minute": "closed"}) as running:
        token = running.new_token(requests_per_minute=10)
        assert running.ask("GET", "/v1/models", token=token).status == 200
        server.command("CONFIG", "SET", "maxmemory", "3mb")
        server.command("CONFIG", "SET", "maxmemory-policy", "volatile-lru")
        server.command("CLIENT", "KILL", "TYPE", "normal")
        eventually(lambda: running.ask("GET", "/v1/models", token=token).status == 503)
        eventually(lambda: REASON.format("volatile-lru") in running.daemon.output())
        server.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
        eventually(lambda: running.ask("GET", "/v1/models", token=token).status == 200, 10)
