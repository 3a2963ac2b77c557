"""Limits and budgets through started daemons: in one, and in four that share a Redis."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.support.processes import HOST, Daemon
from tests.support.redis_server import RedisServer
from tests.support.responses import Response
from tests.support.stack import Stack, eventually
from tests.support.taking_turns import refused_by_turns

CHAT = "/v1/chat/completions"
LEASE = 3.0
CRASHES = 5
BODY = json.dumps({"model": "gpt-4o", "max_tokens": 400, "messages": [{"role": "user", "content": "x" * 200}]}).encode()
STREAM = json.dumps(
    {"model": "gpt-4o", "max_tokens": 400, "stream": True, "messages": [{"role": "user", "content": "x"}]}
).encode()


def limited(stack: Stack, **limits: Any) -> tuple[str, str]:
    """A new token with these limits, and its id."""
    made = stack.manage("POST", "/manage/tokens", {"project_id": stack.project, **limits})
    return str(made["token"]), str(made["id"])


def standing(stack: Stack, token_id: str, limit: str) -> dict[str, Any]:
    shown = stack.manage("GET", f"/manage/tokens/{token_id}")["limits"]
    return next(dict(each) for each in shown if each["limit"] == limit)


def cost(answers: Iterable[Response]) -> float:
    """What the provider charges for these, by what it told in each of them."""
    told = [answer.json["usage"] for answer in answers if answer.status == 200]
    return sum(usage["prompt_tokens"] * 2.5 + usage["completion_tokens"] * 10 for usage in told) / 1e6


def _calls_until_it_dies(stack: Stack, token: str) -> int:
    """How many were answered."""
    answered = 0
    while True:
        try:
            answered += stack.ask("POST", CHAT, BODY, {"X-Sim-Delay": "0.02"}, token=token).status == 200
        except (OSError, HTTPException):
            return answered


class TestOneDaemon:
    def test_requests_per_minute(self, stack: Stack) -> None:
        """Sixty and no more; each refusal says when the first of them will have left the minute."""
        token, _ = limited(stack, requests_per_minute=60)
        begun = time.monotonic()
        connection = HTTPConnection(HOST, stack.daemon.port, timeout=30)
        statuses: list[int] = []
        for _ in range(75):
            connection.request("GET", "/v1/models", headers={"Authorization": f"Bearer {token}"})
            answer = connection.getresponse()
            answer.read()
            statuses.append(answer.status)
            if answer.status == 429:
                passed = time.monotonic() - begun
                assert 59 - passed <= int(answer.headers["Retry-After"]) <= 61
        connection.close()
        assert statuses == [200] * 60 + [429] * 15

    def test_shown_and_enforced(self, stack: Stack) -> None:
        token, token_id = limited(stack, budget_usd="1/month", tokens_per_minute=100_000, concurrency=3)
        answer = stack.ask("POST", CHAT, BODY, token=token)
        assert answer.status == 200
        used = answer.json["usage"]
        spent = cost([answer])
        eventually(lambda: standing(stack, token_id, "budget_usd")["used"] == pytest.approx(spent, abs=1e-9))
        tokens = standing(stack, token_id, "tokens_per_minute")
        assert (tokens["allowed"], tokens["used"]) == (100_000, used["total_tokens"])
        assert standing(stack, token_id, "concurrency")["used"] == 0

    def test_a_budget_survives_kill_9(self, tmp_path: Path) -> None:
        """What was spent is not forgotten, and never too little is remembered."""
        with Stack(tmp_path) as stack:
            token, token_id = limited(stack, budget_tokens="60000/day")
            spent = sum(
                int(stack.ask("POST", CHAT, BODY, token=token).json["usage"]["total_tokens"]) for _ in range(20)
            )
            stack.daemon.kill()
            stack.daemon.start()
            # Its journal is entered at the next start, and what it had in advance given back.
            eventually(lambda: standing(stack, token_id, "budget_tokens")["used"] == spent, 20)

    @pytest.mark.long("3 s: what many crashes had in advance comes back, to the cent's thousandth")
    def test_a_budget_after_many_crashes(self, tmp_path: Path) -> None:
        """What killed processes had in advance, and what their requests under way had claimed, comes back: when their
        journals are entered the budget has lost what the ledger says, to the cent's thousandth."""
        with Stack(tmp_path) as stack:
            token, token_id = limited(stack, budget_usd="5/month")
            answered = 0
            for _ in range(CRASHES):
                with ThreadPoolExecutor(8) as clients:
                    running = [clients.submit(_calls_until_it_dies, stack, token) for _ in range(8)]
                    time.sleep(1.2)
                    stack.daemon.kill()
                    answered += sum(each.result() for each in running)
                stack.daemon.start()

            def both() -> tuple[float, float]:
                rows = stack.manage("GET", f"/manage/usage?group_by=token&project_id={stack.project}")["data"]
                billed = sum(row["cost_usd"] for row in rows if row["token_id"] == token_id)
                return billed, standing(stack, token_id, "budget_usd")["used"]

            eventually(lambda: (found := both())[0] > 0 and found[1] == pytest.approx(found[0], abs=1e-5), 60)
            print(f"{CRASHES} crashes, {answered} answers: in the ledger and of the budget {both()}")
            assert answered > 0

    def test_no_use_is_lost_where_nothing_was_sent(self, stack: Stack) -> None:
        """max_requests counts what was sent: a provider that cannot be reached costs no use."""
        made = stack.manage("POST", "/manage/projects", {"name": "Elsewhere", "api_keys": {"openai": "sk-sim-openai"}})
        token, token_id = limited(stack, max_requests=3)
        stack.simulator.stop()
        try:
            refused = [stack.ask("POST", CHAT, BODY, token=token) for _ in range(3)]
        finally:
            stack.simulator.start()
        assert [answer.header("X-LLMProxy-Error") for answer in refused] == ["upstream_unreachable"] * 3
        eventually(lambda: stack.manage("GET", f"/manage/tokens/{token_id}")["request_count"] == 0)
        assert [stack.ask("POST", CHAT, BODY, token=token).status for _ in range(4)] == [200, 200, 200, 429]
        assert made["id"]


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, list[Daemon], RedisServer]]:
    home = tmp_path_factory.mktemp("four")
    with ExitStack() as running:
        redis = running.enter_context(RedisServer(home / "redis"))
        env = {
            "LLMPROXY_LIMITS_BACKEND": "redis",
            "LLMPROXY_REDIS_URL": redis.url,
            "LLMPROXY_LIMITS_LEASE": f"{LEASE:g}s",
        }
        stack = running.enter_context(Stack(home, env=env))
        others = [running.enter_context(stack.another(f"daemon-{number}")) for number in range(3)]
        yield stack, [stack.daemon, *others], redis


Four = tuple[Stack, list[Daemon], RedisServer]


def calls(
    stack: Stack, daemons: list[Daemon], token: str, each: int, at_once: int, patience: int = 0
) -> list[list[Response]]:
    """So many calls to each daemon, so many at once to each; a client that is told to come again soon does so."""

    def call(number: int) -> list[Response]:
        answers: list[Response] = []
        while not answers or (answers[-1].status == 429 and len(answers) <= patience):
            if answers:
                if answers[-1].header("X-Should-Retry") == "false":
                    break
                time.sleep(min(float(answers[-1].header("Retry-After") or 1), 1))
            port = daemons[number % len(daemons)].port
            answers.append(stack.ask("POST", CHAT, BODY, {"X-Sim-Delay": "0.02"}, token=token, port=port))
        return answers

    with ThreadPoolExecutor(at_once * len(daemons)) as clients:
        return list(clients.map(call, range(each * len(daemons))))


@pytest.mark.alone  # four busy daemons may wait too long for the lock of their database where others are busy too
@pytest.mark.long("4 s: one client at a time, at four busy daemons")
def test_one_after_the_other_by_turns(four: Four) -> None:
    """One at a time is allowed: whoever goes on at the next daemon, once the response has come, never meets itself."""
    stack, daemons, _ = four
    token, _ = limited(stack, concurrency=1)
    busy_token, _ = limited(stack, concurrency=100)
    ports = [daemon.port for daemon in daemons]
    assert refused_by_turns(ports, token, busy_token, (BODY, STREAM), 80) == []


@pytest.mark.long("5 s: four daemons at once never spend more than a budget")
def test_four_daemons_never_spend_more_than_a_budget(four: Four) -> None:
    """Four hundred calls, a hundred at once, until nothing fits any more: what the provider charged stays within the
    budget, and no more of it is left than one call may need."""
    stack, daemons, _ = four
    token, token_id = limited(stack, budget_usd="0.025/day")
    answers = [answer for answers in calls(stack, daemons, token, 100, 25, patience=2) for answer in answers]

    def used_up() -> bool:
        """One more call to each daemon: what they have in advance comes back by and by."""
        answers.extend(stack.ask("POST", CHAT, BODY, token=token, port=daemon.port) for daemon in daemons)
        return cost(answers) > 0.025 - 0.0048

    eventually(used_up, 60)
    statuses = [answer.status for answer in answers]
    spent = cost(answers)
    told = f"{spent:.6f} of 0.025 USD by {statuses.count(200)} answers; {statuses.count(429)} refusals"
    print(told)
    assert set(statuses) == {200, 429}
    # What one request may cost at most no longer fits in what is left, and nothing but that was left.
    assert 0.025 - 0.0048 < spent <= 0.025, told
    # What a daemon has in advance counts as used until it is given back.
    eventually(lambda: standing(stack, token_id, "budget_usd")["used"] == pytest.approx(spent, abs=1e-9), 15)
    assert all(a.header("X-LLMProxy-Error") == "budget_exceeded" for a in answers if a.status == 429)
    # Nothing stays refused for good: as soon as there is more, it can be used, wherever one asks.
    stack.manage("PATCH", f"/manage/tokens/{token_id}", {"budget_usd": "1/day"})
    for daemon in daemons:
        eventually(lambda port=daemon.port: stack.ask("POST", CHAT, BODY, token=token, port=port).status == 200, 8)


def test_four_daemons_share_a_rate(four: Four) -> None:
    stack, daemons, _ = four
    token, _ = limited(stack, requests_per_minute=100)
    statuses = [answer.status for (answer,) in calls(stack, daemons, token, 50, 8)]
    assert (statuses.count(200), statuses.count(429)) == (100, 100)


def test_a_daemon_that_is_killed_leaves_its_leases(four: Four) -> None:
    """While its streams live nobody else is let in; when it is killed they are free within the lease time."""
    stack, daemons, _ = four
    token, _ = limited(stack, concurrency=4)
    victim = daemons[3]

    def stream() -> None:
        try:
            stack.ask(
                "POST", CHAT, STREAM, {"X-Sim-Delay": "0,0.5", "X-Sim-Events": "100"}, token=token, port=victim.port
            )
        except (OSError, HTTPException):
            pass  # it is killed

    streams = [Thread(target=stream, daemon=True) for _ in range(4)]
    before = len(stack.recorded())
    for each in streams:
        each.start()
    eventually(lambda: len(stack.recorded()) == before + 4)  # all four are in, before anybody takes their place

    def status() -> int:
        return stack.ask("POST", CHAT, BODY, token=token).status

    assert status() == 429
    end = time.monotonic() + 1.5 * LEASE  # longer than a lease: they are renewed
    while time.monotonic() < end:
        assert status() == 429
        time.sleep(0.3)
    victim.kill()
    killed = time.monotonic()
    eventually(lambda: status() == 200, LEASE + 2)
    took = time.monotonic() - killed
    print(f"leases of a killed process were free after {took:.1f} s (lease time {LEASE:g} s)")
    assert took <= LEASE + 1.0
    victim.start()


@pytest.mark.long("2 s: four daemons that lose their Redis and find it again")
def test_redis_is_lost_and_comes_back(four: Four) -> None:
    """Rates go on by each process's part, budgets are closed as is the default; when it is back all is as before."""
    stack, daemons, redis = four
    # Each is to know how many there are: all have registered, and have renewed since, which tells them.
    eventually(lambda: int(redis.command("ZCARD", "llmproxy:limits:processes").strip(b":\r\n")) >= len(daemons), 10)
    time.sleep(1.5)
    rated, _ = limited(stack, requests_per_minute=40)
    budgeted, token_id = limited(stack, budget_usd="1/day")
    answers = [stack.ask("POST", CHAT, BODY, token=budgeted) for _ in range(5)]
    redis.kill()
    try:
        eventually(
            lambda: stack.ask("POST", CHAT, BODY, token=budgeted).header("X-LLMProxy-Error") == "limits_unavailable"
        )
        ready = stack.ask("GET", "/ready")
        assert (ready.status, ready.json["status"]) == (200, "degraded")
        assert ready.json["checks"]["limits"] == "unreachable (closed: budget_usd, budget_tokens)"
        statuses = [stack.ask("GET", "/v1/models", token=rated).status for _ in range(40)]
        assert 10 <= statuses.count(200) <= 14, statuses.count(200)  # a fourth, or a third where one was just killed
    finally:
        redis.start()
    for daemon in daemons:

        def through(port: int = daemon.port) -> bool:
            answers.append(stack.ask("POST", CHAT, BODY, token=budgeted, port=port))
            return answers[-1].status == 200

        eventually(through, 10)
    # This Redis keeps nothing on its disk; what was spent before is known all the same.
    eventually(lambda: standing(stack, token_id, "budget_usd")["used"] == pytest.approx(cost(answers), abs=1e-9), 15)


@pytest.mark.long("2 s: all that Redis had is lost, as where it is started anew")
def test_redis_is_flushed(four: Four) -> None:
    """Rates, requests at once and budgets go on from where they were, whichever daemon one asks."""
    stack, daemons, redis = four
    token, token_id = limited(stack, requests_per_minute=20, budget_usd="1/day")
    answers = [stack.ask("POST", CHAT, BODY, token=token, port=daemon.port) for daemon in daemons * 3]
    redis.command("FLUSHALL")
    time.sleep(1.5)  # within a second every daemon says what it uses
    answers += [stack.ask("POST", CHAT, BODY, token=token, port=daemon.port) for daemon in daemons * 6]
    assert [answer.status for answer in answers].count(200) == 20
    eventually(lambda: standing(stack, token_id, "budget_usd")["used"] == pytest.approx(cost(answers), abs=1e-9), 15)
