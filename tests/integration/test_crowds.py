"""A thousand requests at once on one budget, through started daemons: all are answered, for no more than it holds."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.postgres import PostgreSQL
from tests.support.processes import HOST
from tests.support.redis_server import RedisServer
from tests.support.stack import Stack, eventually

pytestmark = pytest.mark.alone

AT_ONCE = 1000
WITHIN_SECONDS = 10.0
BODY = json.dumps({"model": "gpt-4o", "max_tokens": 400, "messages": [{"role": "user", "content": "x" * 200}]}).encode()
# So that nothing else but the counters is in the way of so many.
ROOM = "connection: {max_conns_per_host: 4000, max_open_per_project: 4000}"


class Outcome(NamedTuple):
    status: int
    error: str
    cost: float  # USD, by what the provider's answer said
    seconds: float


# The same thousand wherever counters are: all three prove the figure, one of them shows that it is so.
STORES = [
    "sqlite",
    *(
        pytest.param(each, marks=pytest.mark.long("4 s: a thousand at once on one budget of a shared store"))
        for each in ("postgresql", "redis")
    ),
]


@pytest.fixture(scope="module", params=STORES)
def crowded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    home = tmp_path_factory.mktemp(f"crowd-{request.param}")
    env = {"LLMPROXY_SERVER_MAX_CONNECTIONS_PER_ADDRESS": "4000"}
    with ExitStack() as running:
        if request.param == "postgresql":
            server: PostgreSQL = request.getfixturevalue("postgres")
            env["LLMPROXY_STORE_URL"] = server.migrated()
        if request.param == "redis":
            redis = running.enter_context(RedisServer(home / "redis"))
            env |= {"LLMPROXY_LIMITS_BACKEND": "redis", "LLMPROXY_REDIS_URL": redis.url}
        yield running.enter_context(Stack(home, more=ROOM, env=env))


async def ask(port: int, token: str, begin: asyncio.Event) -> Outcome:
    """One request on a connection of its own, sent when all are connected."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        await begin.wait()
        begun = time.monotonic()
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
            b"Authorization: Bearer %b\r\nContent-Length: %d\r\n\r\n%b" % (token.encode(), len(BODY), BODY)
        )
        answer = await asyncio.wait_for(reader.read(), 60)
        took = time.monotonic() - begun
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
    status = int(lines[0].split()[1])
    usage: dict[str, Any] = json.loads(body)["usage"] if status == 200 else {}
    cost = (usage.get("prompt_tokens", 0) * 2.5 + usage.get("completion_tokens", 0) * 10) / 1e6
    return Outcome(status, fields.get("x-llmproxy-error", ""), cost, took)


def crowd(stack: Stack, token: str, size: int = AT_ONCE) -> list[Outcome]:
    async def all_of_them() -> list[Outcome]:
        begin = asyncio.Event()
        asking = [asyncio.ensure_future(ask(stack.daemon.port, token, begin)) for _ in range(size)]
        await asyncio.sleep(0.5)
        begin.set()
        return list(await asyncio.gather(*asking))

    return asyncio.run(all_of_them())


def judged(replies: list[Outcome], budget: float) -> Counter[tuple[int, str]]:
    """How they were answered; all of them, in time, and for no more than that."""
    slowest, spent = max(reply.seconds for reply in replies), sum(reply.cost for reply in replies)
    kinds = Counter((reply.status, reply.error) for reply in replies)
    print(f"{dict(kinds)}; slowest {slowest:.1f} s; spent {spent:.6f} of {budget}")
    assert slowest < WITHIN_SECONDS, (slowest, kinds)
    assert spent <= budget, (spent, kinds)
    return kinds


def limited(stack: Stack, budget: float) -> str:
    return stack.new_token(budget_usd=f"{budget}/day")


def test_on_a_fresh_budget(crowded: Stack) -> None:
    """Nothing was taken of it before; it is enough for all."""
    assert judged(crowd(crowded, limited(crowded, 1000)), 1000) == {(200, ""): AT_ONCE}


@pytest.mark.long("2 s: a fresh budget and one that is used up are the bounds of it")
def test_on_a_budget_that_does_not_last(crowded: Stack) -> None:
    """Some are let through, the others refused; what those did not need can be used afterwards."""
    token = limited(crowded, 0.2)
    kinds = judged(crowd(crowded, token), 0.2)
    assert set(kinds) == {(200, ""), (429, "budget_exceeded")}, kinds
    eventually(lambda: next_one(crowded, token) == 200, 10)


@pytest.mark.long("1 s: one that is used up by many refuses as one that few have used up")
def test_on_a_budget_that_is_used_up(crowded: Stack) -> None:
    """All are refused, and so is who comes later; a budget that is raised serves again."""
    made = crowded.manage("POST", "/manage/tokens", {"project_id": crowded.project, "budget_usd": "1/day"})
    assert next_one(crowded, made["token"]) == 200
    crowded.manage("PATCH", f"/manage/tokens/{made['id']}", {"budget_usd": "0.00008/day"})  # less than is spent
    assert judged(crowd(crowded, made["token"]), 0.00008) == {(429, "budget_exceeded"): AT_ONCE}
    assert next_one(crowded, made["token"]) == 429
    crowded.manage("PATCH", f"/manage/tokens/{made['id']}", {"budget_usd": "1/day"})
    eventually(lambda: next_one(crowded, made["token"]) == 200, 10)


def next_one(stack: Stack, token: str) -> int:
    """How one more is answered."""
    return stack.ask("POST", "/v1/chat/completions", BODY, token=token).status


@pytest.mark.long("3 s: a thousand requests while the database is locked are all answered")
def test_while_the_database_is_locked(tmp_path: Path) -> None:
    """Two hundred at once, again and again, while somebody else holds the lock of SQLite for two seconds: all are
    answered, and afterwards as before."""
    with Stack(tmp_path, more=ROOM) as stack:
        token = limited(stack, 1000)
        assert judged(crowd(stack, token, 200), 1000) == {(200, ""): 200}  # what it has in advance is soon used up
        other = sqlite3.connect(tmp_path / "llmproxy.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        try:
            with ThreadPoolExecutor(1) as aside:
                crowding = aside.submit(lambda: [crowd(stack, token, 200) for _ in range(3)])
                time.sleep(2)
                other.execute("ROLLBACK")
                for replies in crowding.result():
                    assert set(judged(replies, 1000)) <= {(200, ""), (503, "limits_unavailable")}
        finally:
            other.close()
        assert judged(crowd(stack, token, 200), 1000) == {(200, ""): 200}
