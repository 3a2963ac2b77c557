"""A budget that is used up lets nothing more through, whatever shape a request has: 40 of each of ten shapes, served 0.

Each shape once went past a budget, because what a request costs at most was guessed from its first bytes; the last of
all arrives in two pieces, its body some milliseconds behind its head.
"""

from __future__ import annotations

import gzip
import json
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.client import HTTPResponse
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.support.processes import HOST
from tests.support.redis_server import RedisServer
from tests.support.stack import Stack, eventually

EACH = 40
CHAT = "/v1/chat/completions"
TEXT = [{"role": "user", "content": "how much is left"}]
HONEST: Mapping[str, Any] = {"model": "gpt-4o", "max_tokens": 100, "messages": TEXT}
SETTINGS = """\
default_api: openai
state_dir: {home}/state
apis:
  openai: {{provider: openai, base_url: "{provider}", allowed_endpoints: ["/**"]}}
server: {{listen: ["tcp:{port}:interface=127.0.0.1"]}}
store: {{url: "sqlite:///{home}/llmproxy.db"}}
audit: {{file: {home}/audit.jsonl}}
"""

Shape = tuple[str, str, bytes, str]
"""Path, media type, body, and its encoding."""


def chat(body: bytes, kind: str = "application/json", encoding: str = "") -> Shape:
    return CHAT, kind, body, encoding


def honest() -> bytes:
    return json.dumps(HONEST).encode()


def late() -> bytes:
    """The model behind 200 KB of conversation."""
    said = [{"role": "user", "content": "word " * 40_000}, *TEXT]
    return json.dumps({"messages": said, "max_tokens": 100, "model": "gpt-4o"}).encode()


def form() -> bytes:
    parts = [b'name="prompt"\r\n\r\na ship', b'name="image"; filename="a.png"\r\n\r\n' + b"\x89PNG" * 30_000]
    parts.append(b'name="model"\r\n\r\ngpt-image-1')
    return b"".join(b"--xx\r\nContent-Disposition: form-data; %b\r\n" % part for part in parts) + b"--xx--\r\n"


def escaped() -> bytes:
    return honest().replace(b'"model"', rb'"\u006dodel"').replace(b'"max_tokens"', rb'"max\u005ftokens"')


def decoys() -> bytes:
    """A tool's input and metadata that say other names and numbers, before the request's own."""
    decoy = {"model": "text-embedding-3-small", "max_tokens": 0, "n": 0}
    tool = {"type": "function", "function": {"name": "f", "parameters": {"default": decoy}}}
    return json.dumps({"metadata": decoy, "tools": [tool], **HONEST}).encode()


SHAPES: Mapping[str, Callable[[], Shape]] = {
    "honest": lambda: chat(honest()),
    "many spaces": lambda: chat(b" " * 100_000 + honest()),
    "late model": lambda: chat(late()),
    "multipart": lambda: ("/v1/images/edits", "multipart/form-data; boundary=xx", form(), ""),
    "form": lambda: chat(urlencode({**HONEST, "messages": "x"}).encode(), "application/x-www-form-urlencoded"),
    "gzip": lambda: chat(gzip.compress(honest()), encoding="gzip"),
    "byte order mark": lambda: chat(b"\xef\xbb\xbf" + honest()),
    "UTF-16": lambda: chat(json.dumps(HONEST).encode("utf-16")),
    "escapes in names": lambda: chat(escaped()),
    "decoy members": lambda: chat(decoys()),
}


class Spender(Stack):
    settings = SETTINGS
    keys: Mapping[str, str] = MappingProxyType({"openai": "sk-sim-openai"})

    def send(self, token: str, shape: Shape, late: float) -> int:
        """The status of one request on a connection of its own; its body comes C{late} seconds behind its head."""
        path, kind, body, encoding = shape
        head = [f"POST {path} HTTP/1.1", "Host: a", f"Authorization: Bearer {token}", f"Content-Type: {kind}"]
        head += [f"Content-Encoding: {encoding}"] if encoding else []
        head += [f"Content-Length: {len(body)}", "Connection: close", "", ""]
        with socket.create_connection((HOST, self.daemon.port), 20) as peer:
            peer.sendall("\r\n".join(head).encode())
            if late:
                time.sleep(late)
            try:
                peer.sendall(body)
            except ConnectionError:
                pass  # refused by its head: the answer is there
            return int(peer.recv(64).split(b" ")[1])

    def spent(self, output: int) -> str:
        """A token with half a cent a day, of which one request has spent so many tokens of output."""
        made = self.manage("POST", "/manage/tokens", {"project_id": self.project, "budget_usd": "0.005/day"})
        token, kind = str(made["token"]), {"Content-Type": "application/json"}
        use = {"X-Sim-Use": f"input=0, output={output}"}
        assert self.ask("POST", CHAT, honest(), {**kind, **use}, token=token).status == 200
        eventually(lambda: self._used(made["id"]) == pytest.approx(output / 1e5))
        assert self.ask("POST", CHAT, honest(), kind, token=token).status == 429
        return token

    def _used(self, token_id: str) -> float:
        (limit,) = self.manage("GET", f"/manage/tokens/{token_id}")["limits"]
        return float(limit["used"])


@pytest.fixture(scope="module", params=["memory", "redis"])
def spender(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spender]:
    home, further = Path(tmp_path_factory.mktemp(request.param)), ""
    with ExitStack() as running:
        if request.param == "redis":
            server = running.enter_context(RedisServer(home / "redis"))
            further = f"redis: {{url: '{server.url}'}}\nlimits: {{backend: redis}}\n"
        yield running.enter_context(Spender(home, further=further))


@pytest.fixture(scope="module", params=[600, 499], ids=["used up", "all but used up"])
def token(spender: Spender, request: pytest.FixtureRequest) -> str:
    """Of a budget that is overdrawn, or of which a hundredth of what an honest request may cost is left."""
    return spender.spent(request.param)


@pytest.mark.parametrize("name", SHAPES)
def test_nothing_more_is_served(spender: Spender, token: str, name: str) -> None:
    """None is answered 200, and the provider has seen none of them."""
    eventually(lambda: all(entry["finished_at"] for entry in spender.recorded()))
    before, shape = len(spender.recorded()), SHAPES[name]()
    delays = [0.0, 0.005] * (EACH // 2)
    with ThreadPoolExecutor(8) as many:
        statuses = Counter(many.map(lambda late: spender.send(token, shape, late), delays))
    assert sum(statuses.values()) == EACH
    assert statuses.keys() <= {400, 403, 415, 429}, statuses
    assert len(spender.recorded()) == before


def test_the_shapes_are_served_where_there_is_a_budget(spender: Spender) -> None:
    """What refuses them is the budget and not their shape: with money left, most of them are answered."""
    token = spender.new_token(budget_usd="100/day")
    statuses = {name: spender.send(token, shape(), 0.005) for name, shape in SHAPES.items()}
    served = {name for name, status in statuses.items() if status == 200}
    assert {"honest", "many spaces", "late model", "multipart", "escapes in names", "decoy members"} <= served, statuses


@pytest.mark.long("1 s: on three kinds of store, as forty of each form")
def test_a_thousand_by_a_hundred_connections(spender: Spender) -> None:
    """A budget for some 480 requests, and 1,000 whose head the fast path knows: none is served beyond it."""
    made = spender.manage("POST", "/manage/tokens", {"project_id": spender.project, "budget_usd": "0.5/day"})
    token, body, rounds = str(made["token"]), honest(), 10
    head = f"POST {CHAT} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n"
    sent = f"{head}X-Sim-Use: input=20, output=100\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body

    def status(peer: socket.socket) -> int:
        response = HTTPResponse(peer, method="POST")
        response.begin()
        response.read()
        return response.status

    statuses: Counter[int] = Counter()
    with ExitStack() as opened:
        peers = [opened.enter_context(socket.create_connection((HOST, spender.daemon.port), 30)) for _ in range(100)]
        for _ in range(rounds):
            for peer in peers:
                peer.sendall(sent)
            statuses.update(map(status, peers))
    served, cost = statuses[200], 20 * 2.5e-6 + 100 * 10e-6
    assert statuses.keys() == {200, 429}, statuses
    assert 0.4 / cost < served <= 0.5 / cost, statuses
    eventually(lambda: spender._used(made["id"]) == pytest.approx(served * cost))
