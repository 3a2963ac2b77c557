"""The ledger of the started daemon: every token counted, every request entered once, whatever ends the process."""

from __future__ import annotations

import json
import os
import random
import socket
import sqlite3
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import genai_prices
import pytest
from genai_prices.types import Usage

from tests.support.processes import HOST
from tests.support.responses import Response
from tests.support.stack import Stack, eventually

CALLS = int(os.environ.get("LLMPROXY_LEDGER_CALLS", "120"))
STREAMS = int(os.environ.get("LLMPROXY_LEDGER_STREAMS", "60"))
WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Stack]:
    with Stack(tmp_path) as stack:
        yield stack


def lines(stack: Stack) -> list[dict[str, Any]]:
    """The ledger as it stands in the database."""
    with closing(sqlite3.connect(stack.home / "llmproxy.db")) as database:
        database.row_factory = sqlite3.Row
        return [dict(row) for row in database.execute("SELECT * FROM ledger ORDER BY at")]


def entered(stack: Stack, many: int) -> list[dict[str, Any]]:
    eventually(lambda: len(lines(stack)) >= many, 20)
    return lines(stack)


class Asked:
    """One call, and what the simulator says that it uses: words, in and out."""

    def __init__(self, rng: random.Random) -> None:
        self.given, self.made = rng.randint(1, 40), rng.randint(1, 30)
        self.provider = rng.choice(["openai", "responses", "anthropic", "google", "mistral"])
        self.stream = rng.random() < 0.6
        text = " ".join(rng.choice(WORDS) for _ in range(self.given))
        message = [{"role": "user", "content": text}]
        self.headers = {"X-Sim-Events": str(self.made), "Content-Type": "application/json"}
        if rng.random() < 0.4:
            self.headers["X-Sim-Gzip"] = "1"
        if rng.random() < 0.5:
            self.headers["X-Sim-Split"] = str(rng.randint(1, 10**6))
        self.body: dict[str, Any]
        match self.provider:
            case "openai":
                self.path, self.model = "/openai/v1/chat/completions", "gpt-4o"
                self.body = {"model": self.model, "messages": message}
                if self.stream:
                    self.body |= {"stream": True, "stream_options": {"include_usage": True}}
            case "responses":
                self.path, self.model = "/v1/responses", "gpt-4.1"
                self.body = {"model": self.model, "input": text, "stream": self.stream}
            case "anthropic":
                self.path, self.model = "/anthropic/v1/messages", "claude-sonnet-4-5"
                self.headers["anthropic-version"] = "2023-06-01"
                self.body = {"model": self.model, "max_tokens": 99, "messages": message, "stream": self.stream}
            case "google":
                self.model = "gemini-2.5-flash"
                verb = "streamGenerateContent" if self.stream else "generateContent"
                events = "?alt=sse" if self.stream and rng.random() < 0.5 else ""
                self.path = f"/google/v1beta/models/{self.model}:{verb}{events}"
                self.body = {"contents": [{"role": "user", "parts": [{"text": text}]}]}
            case _:
                self.path, self.model = "/mistral/v1/chat/completions", "mistral-small-latest"
                self.body = {"model": self.model, "messages": message, "stream": self.stream}

    @property
    def cost(self) -> float:
        """By genai-prices alone."""
        provider = "openai" if self.provider == "responses" else self.provider
        price = genai_prices.calc_price(
            Usage(input_tokens=self.given, output_tokens=self.made),
            self.model,
            provider_id=provider,
            genai_request_timestamp=datetime.now(UTC),
        )
        return float(price.total_price)


def test_ground_truth(own: Stack) -> None:
    """Calls of all kinds: the sums are those of the simulator, to the token, and the price list's, to the cent."""
    rng = random.Random(5)
    calls = [Asked(rng) for _ in range(CALLS)]

    def ask(call: Asked) -> None:
        reply = own.ask("POST", call.path, json.dumps(call.body).encode(), call.headers)
        assert reply.status == 200, (call.path, reply.body)

    with ThreadPoolExecutor(8) as many:
        list(many.map(ask, calls))
    found = entered(own, CALLS)
    assert Counter((line["outcome"], line["basis"]) for line in found) == {("exact", "exact"): CALLS}
    assert sum(line["input_tokens"] for line in found) == sum(call.given for call in calls)
    assert sum(line["output_tokens"] for line in found) == sum(call.made for call in calls)
    expected = Counter((call.model, call.given, call.made, round(call.cost, 12)) for call in calls)
    assert expected == Counter(
        (line["answered"], line["input_tokens"], line["output_tokens"], round(line["cost_usd"], 12)) for line in found
    )
    report = own.manage("GET", "/manage/usage?group_by=model")
    by_model = {row["model"]: (row["requests"], row["input_tokens"], row["cost_usd"]) for row in report["data"]}
    for model in {call.model for call in calls}:
        same = [call for call in calls if call.model == model]
        requests, given, cost = by_model[model]
        assert (requests, given) == (len(same), sum(call.given for call in same))
        assert cost == pytest.approx(sum(call.cost for call in same), abs=1e-9)


def test_report_has_the_latest(own: Stack) -> None:
    """A report holds what was answered a moment ago; as CSV and for one project too."""
    body = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "a b c"}]}).encode()
    assert own.ask("POST", "/v1/chat/completions", body, {"X-Sim-Events": "4"}).status == 200
    (row,) = own.manage("GET", f"/manage/projects/{own.project}/usage?group_by=api,day")["data"]
    assert (row["api"], row["input_tokens"], row["output_tokens"]) == ("openai", 3, 4)
    assert row["day"] == datetime.now(UTC).date().isoformat()
    reply = own.ask(
        "GET", "/manage/usage?format=csv", headers={"Authorization": "Bearer management-token-for-tests-0123456789"}
    )
    head, first, _ = reply.body.decode().split("\r\n")
    assert head.startswith("project_id,requests") and first.startswith(f"{own.project},1,0,0,0,3,0,0,4,0,0.0000")


def test_refused_and_failed(own: Stack) -> None:
    """A refusal of ours and an error of the provider's have their line; who has no token has none."""
    limited = own.new_token(models=["gpt-4.1*"])
    body = json.dumps({"model": "gpt-4o", "messages": []}).encode()
    assert own.ask("POST", "/v1/chat/completions", body, token=limited).status == 403
    assert own.ask("POST", "/v1/chat/completions", body, {"X-Sim-Status": "500"}).status == 500
    assert own.ask("POST", "/v1/chat/completions", body, token="sk-lp-nobody").status == 401
    assert own.ask("GET", "/v1/models").status == 200
    found = entered(own, 3)
    told = [
        (line["outcome"], line["error"], line["status"], line["upstream_status"], line["cost_usd"]) for line in found
    ]
    assert told == [
        ("failed", "model_not_allowed", 403, None, None),
        ("failed", "", 500, 500, None),
        ("exact", "", 200, 200, None),
    ]


def test_every_request_once(own: Stack) -> None:
    """Clients that leave, providers that cut, then kill -9: a line for each that the simulator saw, none twice."""
    rng = random.Random(7)
    kinds = rng.choices(["whole", "leave", "cut", "reset"], [3, 4, 2, 1], k=STREAMS)

    def stream(kind: str) -> str:
        fault = {"cut": "truncate; after=5", "reset": "reset; after=5"}.get(kind)
        return _stream(own, fault, leave_after=rng.randint(200, 3000) if kind == "leave" else 0)

    with ThreadPoolExecutor(16) as many:
        list(many.map(stream, kinds))
        hanging = [many.submit(_stream, own, "stall; after=3", 0) for _ in range(8)]
        eventually(lambda: len(own.recorded()) == STREAMS + 8)
        eventually(lambda: sum(entry["events_sent"] >= 3 for entry in own.recorded()) >= 8)
        own.daemon.kill()
        for each in hanging:
            each.exception(20)
    seen = own.recorded()
    with own.another("second"):
        found = entered(own, len(seen))
    assert len(found) == len(seen)
    assert len({line["id"] for line in found}) == len(found)
    assert request_ids(seen) == Counter(line["request_id"] for line in found)
    outcomes = Counter(line["outcome"] for line in found)
    assert outcomes["cancelled"] and outcomes["truncated"] >= 8
    lost = [line for line in found if line["error"] == "process_ended"]
    assert len(lost) == 8 and all(line["basis"] == "estimated" and line["input_tokens"] for line in lost)
    assert {round(line["cost_usd"] / line["input_tokens"] * 1e6, 6) for line in lost} == {2.5}, lost  # gpt-4o's input
    assert not list((own.home / "state" / "ledger").iterdir())


def request_ids(entries: list[dict[str, Any]]) -> Counter[str]:
    headers = (header for entry in entries for header in entry["headers"])
    return Counter(header.split(": ", 1)[1] for header in headers if header.lower().startswith("x-request-id"))


@pytest.mark.long("3 s: kill -9 under load, as of one request")
def test_killed_under_load(own: Stack) -> None:
    """Requests in every phase when the process is killed, three times: each that left has its line, none has two."""
    daemon = own.daemon
    for name in ("second", "third", "last"):
        with ThreadPoolExecutor(32) as many:
            before = len(own.recorded())
            streams = [many.submit(_stream, own, None, 0, daemon.port) for _ in range(64)]
            eventually(lambda before=before: len(own.recorded()) >= before + 40)
            daemon.kill()
            for each in streams:
                each.exception(20)
        daemon = own.another(name)
        daemon.start()
    try:
        seen = request_ids(own.recorded())
        eventually(lambda: len(lines(own)) >= len(seen) and not _left(own, daemon.pid), 20)
    finally:
        daemon.stop()
    found = Counter(line["request_id"] for line in lines(own))
    assert set(found.values()) == {1}
    assert set(seen) <= set(found)
    unseen = [line for line in lines(own) if line["request_id"] not in seen]
    assert all(line["error"] == "process_ended" for line in unseen), unseen
    assert _left(own, 0) == []


@pytest.mark.long("1 s: of uses, as of lines")
def test_uses_survive(own: Stack) -> None:
    """Killed with uses that were in memory alone: all are counted, once, and C{max_requests} holds afterwards."""
    made = own.manage("POST", "/manage/tokens", {"project_id": own.project, "name": "used"})
    daemon, secret, total = own.daemon, made["token"], 0
    for name in ("second", "third"):
        with ThreadPoolExecutor(8) as many:
            replies = list(many.map(partial(_chat, own, secret), [daemon.port] * 25))
        assert [reply.status for reply in replies] == [200] * 25
        total += 25
        daemon.kill()
        daemon = own.another(name)
        daemon.start()
    try:
        own.daemon = daemon
        path = f"/manage/tokens/{made['id']}"
        eventually(lambda: own.manage("GET", path)["request_count"] >= total, 20)
        token = own.manage("GET", path)
        assert token["request_count"] == total and token["last_used_at"]
        own.manage("PATCH", path, {"max_requests": total + 2})
        assert [_chat(own, secret, daemon.port).status for _ in range(4)] == [200, 200, 429, 429]
        assert own.manage("GET", path)["request_count"] == total + 2
    finally:
        daemon.stop()


def _chat(own: Stack, token: str, port: int) -> Response:
    body = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "a b c"}]}).encode()
    return own.ask("POST", "/v1/chat/completions", body, token=token, port=port)


def test_cut_by_the_shutdown(own: Stack) -> None:
    """A stream that is cut because the daemon ends is not called its client's doing; one that was left before is."""
    second = own.another("second")
    config = own.home / "second.yaml"
    config.write_text(config.read_text().replace("server: {", "server: {drain_timeout: 1s, "))
    with second, ThreadPoolExecutor(2) as many:
        assert _stream(own, None, 500, second.port) == "left"
        entered(own, 1)
        hanging = many.submit(_stream, own, "stall; after=3", 0, second.port)
        eventually(lambda: len(own.recorded()) == 2 and own.last()["events_sent"] >= 3)
        second.stop(20.0)
        hanging.exception(20)
    told = {(line["outcome"], line["error"]) for line in entered(own, 2)}
    assert told == {("cancelled", ""), ("truncated", "shutdown")}


def test_stopped_in_good_order(own: Stack) -> None:
    """What was answered just before is in the store when the process has ended, and no journal stays."""
    body = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "a b c"}]}).encode()
    for _ in range(5):
        assert own.ask("POST", "/v1/chat/completions", body).status == 200
    own.daemon.stop()
    assert [line["outcome"] for line in lines(own)] == ["exact"] * 5
    assert _left(own, 0) == []


def _left(own: Stack, pid: int) -> list[str]:
    """The journals on the disk; while a process lives, one is its own."""
    found = sorted(path.name for path in (own.home / "state" / "ledger").iterdir())
    return found[1:] if pid and len(found) == 1 else found


_number = iter(range(10**9))


def _stream(own: Stack, fault: str | None, leave_after: int, port: int = 0) -> str:
    """One streamed chat completion, read to its end, or left after so many bytes."""
    body = json.dumps(
        {"model": "gpt-4o", "stream": True, "messages": [{"role": "user", "content": "tell me"}]}
    ).encode()
    more = f"X-Sim-Fault: {fault}\r\n" if fault else ""
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {own.token}\r\n"
        f"X-Request-ID: stream-{next(_number)}\r\nX-Sim-Events: 40\r\nX-Sim-Delay: 0,0.005\r\n{more}"
        f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((HOST, port or own.daemon.port), 20) as sock:
        sock.settimeout(20)
        sock.sendall(head.encode() + body)
        got = 0
        try:
            while data := sock.recv(500):
                got += len(data)
                if leave_after and got >= leave_after:
                    return "left"
        except OSError:
            return "reset"
    return "ended"
