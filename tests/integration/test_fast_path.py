"""The short way through the started daemon: it is taken, and nothing outlives what it was made from."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.client import HTTPConnection
from itertools import product
from pathlib import Path

import pytest

from tests.support.processes import HOST
from tests.support.proxy_case import FAST_PATH
from tests.support.redis_server import RedisServer
from tests.support.stack import MANAGEMENT, Stack, eventually

CHAT = b'{"model":"gpt-4o","messages":[{"role":"user","content":"x"}]}'
MANY = 6


class Own(Stack):
    """A stack that closes its clients."""

    def __enter__(self) -> Own:
        self.clients = ExitStack()
        self.closing = self.clients.callback
        super().__enter__()
        return self


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Own]:
    with Own(tmp_path, env={FAST_PATH: "true"}) as stack, stack.clients:
        yield stack


class Client:
    """Somebody with one connection, who sends the same head each time but for a trace id."""

    def __init__(self, stack: Own, token: str) -> None:
        self.connection = HTTPConnection(HOST, stack.daemon.port, timeout=10)
        self.token, self.count = token, 0
        stack.closing(self.connection.close)

    def ask(self, **more: str) -> tuple[int, str]:
        self.count += 1
        fields = more | {
            "Authorization": f"Bearer {self.token}",
            "Content-Type": "application/json",
            "traceparent": f"00-{self.count:032x}-{self.count:016x}-01",
        }
        self.connection.request("POST", "/v1/chat/completions", CHAT, fields)
        response = self.connection.getresponse()
        response.read()
        return response.status, response.headers.get("X-LLMProxy-Error", "")


def short(stack: Stack) -> int:
    """How many requests went the short way."""
    text = stack.ask("GET", "/metrics", token=MANAGEMENT).body.decode()
    (count,) = re.findall(r"^llmproxy_fast_path_requests_total (\d+)", text, re.MULTILINE)
    return int(count)


def warm(own: Own, client: Client) -> None:
    """Ask until some requests have gone the short way. On a busy machine a body may come too long after its head."""
    for _ in range(100):
        client.ask()
        if short(own) >= MANY - 2:
            return
    raise AssertionError("Hardly any request went the short way.")


def until_short(own: Own, ask_all: Callable[[], object], many: int) -> int:
    """Ask until all went the short way but some: on a busy machine a body may come too long after its head. Returns how
    often that was. What was made a moment ago is changed once more when the store tells of it."""
    for count in range(1, 20):
        before = short(own)
        ask_all()
        if short(own) - before >= many - 4:
            return count
    raise AssertionError("Hardly any request went the short way.")


def test_it_is_taken(own: Own) -> None:
    """From the third request with a head on; what is recorded is as ever."""
    client = Client(own, own.token)
    assert {client.ask() for _ in range(MANY)} == {(200, "")}
    warm(own, client)
    eventually(lambda: sum(row["requests"] for row in own.manage("GET", "/manage/usage")["data"]) == client.count)
    assert [call["headers"] for call in own.recorded()][-1] != [call["headers"] for call in own.recorded()][-2]


def test_many_kinds_of_clients(own: Own) -> None:
    """SDKs, their versions and proxies in front have fields of their own, in orders of their own: all heads are known
    again, on whichever connection, and whatever stands in the fields that name a client or a conversation."""
    heads = [
        {**{f"X-Field-{each}": "v" for each in range(ahead)}, "X-Forwarded-For": "", "X-Behind": "v" * behind}
        for ahead, behind in product(range(12), (1, 2))
    ]

    def ask_all() -> None:
        for number, head in enumerate(heads):
            client = Client(own, own.token)
            assert client.ask(**head | {"X-Forwarded-For": f"192.0.2.{number}"}) == (200, "")
            client.connection.close()

    until_short(own, ask_all, len(heads))


def test_many_tokens_on_one_connection(own: Own) -> None:
    """As a proxy in front sends them: each request is that of its own token, and is refused once that is revoked."""
    tokens = [
        own.manage("POST", "/manage/tokens", {"project_id": own.project, "name": str(number)}) for number in range(12)
    ]
    client = Client(own, "")

    def ask_each() -> list[int]:
        answered = []
        for each in tokens:
            client.token = each["token"]
            answered.append(client.ask()[0])
        return answered

    rounds = until_short(own, ask_each, len(tokens))
    own.manage("DELETE", f"/manage/tokens/{tokens[3]['id']}")
    assert ask_each() == [401 if number == 3 else 200 for number in range(len(tokens))]

    def counted() -> list[int]:
        rows = own.manage("GET", "/manage/usage?group_by=token")["data"]
        found = {row["token_id"]: row["requests"] for row in rows}
        return [found.get(each["id"], 0) for each in tokens]

    eventually(lambda: counted() == [rounds if number == 3 else rounds + 1 for number in range(len(tokens))])


def test_a_revoked_token(own: Own) -> None:
    """Is refused with the next request."""
    made = own.manage("POST", "/manage/tokens", {"project_id": own.project, "name": "revoked"})
    client = Client(own, made["token"])
    warm(own, client)
    own.manage("DELETE", f"/manage/tokens/{made['id']}")
    assert client.ask()[0] == 401


def test_another_provider_key(own: Own) -> None:
    """Is sent with the next request."""
    client = Client(own, own.token)
    for _ in range(MANY):
        client.ask()
    own.manage("PATCH", f"/manage/projects/{own.project}", {"api_keys": {"openai": "sk-sim-wrong"}})
    assert client.ask()[0] == 401
    own.manage("PATCH", f"/manage/projects/{own.project}", {"api_keys": {"openai": "sk-sim-openai"}})
    assert client.ask()[0] == 200


def test_a_choice_of_keys(own: Own) -> None:
    """One is wrong: the first request that has it goes on with the other, and the short way leaves it alone."""
    keys = ["sk-sim-wrong", "sk-sim-openai"]
    own.manage("PATCH", f"/manage/projects/{own.project}", {"api_keys": {"openai": keys}})
    client = Client(own, own.token)
    assert {client.ask() for _ in range(MANY)} == {(200, "")}
    warm(own, client)
    fields = [field for call in own.recorded() for field in call["headers"]]
    sent = [line for line in fields if line.lower().startswith("authorization:")]
    assert sum(keys[0] in line for line in sent) == 1
    assert len(sent) == client.count + 1
    (upstream,) = [each for each in own.manage("GET", "/manage/upstreams")["data"] if each["api"] == "openai"]
    assert ([key["status"] for key in upstream["keys"]], upstream["in_flight"]) == ([401], 0)


def test_a_limit_that_is_set_and_used_up(own: Own) -> None:
    """It holds for what goes the short way: exactly as many as it allows."""
    made = own.manage("POST", "/manage/tokens", {"project_id": own.project, "name": "limited"})
    client = Client(own, made["token"])
    for _ in range(MANY):
        client.ask()
    own.manage("PATCH", f"/manage/tokens/{made['id']}", {"requests_per_minute": 5})
    assert [client.ask()[0] for _ in range(8)] == [200] * 5 + [429] * 3


def test_a_stream_that_its_head_asks_for(tmp_path: Path) -> None:
    """It has as long as streams have, be it ever so long until it begins."""
    timeouts = "timeouts: {request: 300ms, stream: 20s, response_header: 10s}"
    with Own(tmp_path, more=timeouts, env={FAST_PATH: "true"}) as own, own.clients:
        client = Client(own, own.token)
        asks = {"Accept": "text/event-stream", "X-Sim-Delay": "0.5"}
        assert {client.ask(**asks) for _ in range(4)} == {(200, "")}
        eventually(lambda: short(own) > 0)
        assert client.ask(**{"X-Sim-Delay": "0.5"}) == (504, "upstream_timeout")


@pytest.mark.parametrize("counted", ["by Redis", "by the supervisor"])
def test_limits_that_are_counted_elsewhere(tmp_path: Path, counted: str) -> None:
    """The short way waits for them: exactly as many requests as they allow, and each is told how its limits stand."""
    with ExitStack() as running:
        env, further = {FAST_PATH: "true", "LLMPROXY_SERVER_WORKERS": "2"}, ""
        if counted == "by Redis":
            redis = running.enter_context(RedisServer(tmp_path / "redis"))
            env, further = {FAST_PATH: "true"}, f"limits: {{backend: redis}}\nredis: {{url: {redis.url}}}\n"
        own = running.enter_context(Own(tmp_path, further=further, env=env))
        running.enter_context(own.clients)
        limits = {"requests_per_minute": 40, "concurrency": 5}
        made = own.manage("POST", "/manage/tokens", {"project_id": own.project, "name": "limited", **limits})
        client = Client(own, made["token"])
        answers = [client.ask()[0] for _ in range(43)]
        assert answers == [200] * 40 + [429] * 3
        eventually(lambda: short(own) >= MANY)


def test_an_inactive_project(own: Own) -> None:
    """Is refused with the next request."""
    client = Client(own, own.token)
    for _ in range(MANY):
        client.ask()
    own.manage("PATCH", f"/manage/projects/{own.project}", {"active": False})
    assert client.ask()[0] == 403
