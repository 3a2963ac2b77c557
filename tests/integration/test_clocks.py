"""The wall clock is set while the daemon runs: nothing but what has a date notices."""

from __future__ import annotations

import sqlite3
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from http.client import HTTPConnection
from typing import Any

import pytest

from tests.integration.test_background import metric, ready
from tests.integration.test_limits import limited, standing
from tests.support.processes import HOST, Daemon
from tests.support.stack import Stack, eventually
from tests.support.wall_clock import WallClock

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the clock is set by a preloaded library")

CHAT = b'{"model":"gpt-4o","messages":[{"role":"user","content":"x"}]}'
STREAM = b'{"model":"gpt-4o","stream":true,"messages":[{"role":"user","content":"x"}]}'
JSON = {"Content-Type": "application/json"}
BACK, FORWARD = -30.0, 3600.0
DAY = 86400.0


class Stepped:
    """A stack whose first daemon stands on a clock that can be set; the second one's is the real one."""

    def __init__(self, stack: Stack, other: Daemon, clock: WallClock) -> None:
        self.stack = stack
        self.other = other
        self.clock = clock

    def revoked_elsewhere(self) -> float:
        """Seconds until this daemon refuses a token that was revoked on the other one."""
        made = self.stack.manage("POST", "/manage/tokens", {"project_id": self.stack.project, "name": "x"})
        assert self.stack.ask("GET", "/v1/models", token=made["token"]).status == 200
        connection = HTTPConnection(HOST, self.other.port, timeout=10)
        connection.request("DELETE", f"/manage/tokens/{made['id']}", headers=self.management())
        assert connection.getresponse().status < 300
        connection.close()
        begun = time.monotonic()
        eventually(lambda: self.stack.ask("GET", "/v1/models", token=made["token"]).status == 401, 4.0)
        return time.monotonic() - begun

    def management(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.stack.env['LLMPROXY_MANAGEMENT_TOKEN']}"}

    def lines(self) -> int:
        """Lines of the ledger that are in the store."""
        with sqlite3.connect(self.stack.home / "llmproxy.db") as store:
            return int(store.execute("SELECT count(*) FROM ledger").fetchone()[0])


@pytest.fixture(scope="module")
def stepped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stepped]:
    home = tmp_path_factory.mktemp("clocks")
    clock = WallClock(home)
    more = "timeouts: {response_header: 2s, idle: 2s}"
    further = "cache: {enabled: true}\n"
    with Stack(home, more=more, further=further, env=clock.env) as stack:
        other = stack.another("other")
        other._env = {name: value for name, value in other._env.items() if name not in clock.env}
        with other:
            yield Stepped(stack, other, clock)


@pytest.fixture(params=[BACK, FORWARD], ids=["set back by 30 s", "set forward by an hour"])
def step(stepped: Stepped, request: pytest.FixtureRequest) -> Iterator[float]:
    """By how much the clock is to be set; afterwards it is right again."""
    yield request.param
    stepped.clock.set(0)


@pytest.mark.long("3 s: that the library with which these tests set clocks does so")
def test_the_clock_is_one_that_can_be_set(stepped: Stepped, step: float) -> None:
    """Or else the others would show nothing: the date of what is made is the clock's."""

    stepped.clock.set(step)
    made = stepped.stack.manage("POST", "/manage/projects", {"name": "dated"})
    assert abs(datetime.fromisoformat(made["created_at"]).timestamp() - time.time() - step) < 5


def test_it_is_said(stepped: Stepped, step: float) -> None:
    """By the ready page, which goes on saying that requests may come, by metrics, and once by the log."""
    text, log = f"set {'forward' if step > 0 else 'back'} by {abs(step):.0f} s", stepped.stack.daemon.output
    logged = f'"msg":"The clock of this machine was {text}:'
    eventually(lambda: metric(stepped.stack, "llmproxy_clock_step_seconds") == 0)  # it has seen that it is right again
    said, before = log().count(logged), metric(stepped.stack, "llmproxy_clock_steps_total")
    stepped.clock.set(step)
    eventually(lambda: ready(stepped.stack)[1]["checks"]["clock"] == text)
    assert ready(stepped.stack)[0] == 200
    assert ready(stepped.stack)[1]["status"] == "degraded"
    assert metric(stepped.stack, "llmproxy_clock_steps_total") == before + 1
    assert metric(stepped.stack, 'llmproxy_check_ok{check="clock"}') == 0
    assert log().count(logged) == said + 1


def test_revocations_from_elsewhere(stepped: Stepped, step: float) -> None:
    """Are heard of within two seconds, as before."""
    assert stepped.revoked_elsewhere() < 2.0
    stepped.clock.set(step)
    assert stepped.revoked_elsewhere() < 2.0


def test_the_ledger_is_entered(stepped: Stepped, step: float) -> None:
    """A line is in the store a few seconds after its request."""
    stack = stepped.stack
    stepped.clock.set(step)
    before = eventually(stepped.lines)
    assert stack.ask("POST", "/v1/chat/completions", CHAT, JSON).status == 200
    eventually(lambda: stepped.lines() > before, 4.0)


def test_what_is_cached_is_fresh_for_as_long_as_before(stepped: Stepped, step: float) -> None:
    """It gets no older and no younger, and expires when its time is over.

    The hour forward is a clock that is put right, so that the provider's dates are those of the present.
    """
    stack = stepped.stack
    stepped.clock.set(min(-step, 0))
    body = b'{"model":"text-embedding-3-small","input":"%d"}' % int(step)
    headers = {**JSON, "Cache-Control": "public, max-age=3"}

    def asked() -> Any:
        return stack.ask("POST", "/v1/embeddings", body, headers)

    assert asked().header("X-Cache-Status") == "stored"
    kept = time.monotonic()
    stepped.clock.set(min(step, 0))
    hit = asked()
    assert (hit.header("X-Cache-Status"), int(hit.header("Age") or 99) < 3) == ("hit", True)
    time.sleep(max(0.0, kept + 3.1 - time.monotonic()))
    assert asked().header("X-Cache-Status") == "stored"
    assert asked().header("X-Cache-Status") == "hit"  # one that was kept after the step


def test_streams_go_on(stepped: Stepped, step: float) -> None:
    """Neither cut for silence that was none, nor held."""
    stack = stepped.stack
    connection = HTTPConnection(HOST, stack.daemon.port, timeout=20)
    headers = {**JSON, "Authorization": f"Bearer {stack.token}", "X-Sim-Events": "30", "X-Sim-Delay": "0,0.05"}
    connection.request("POST", "/v1/chat/completions", STREAM, headers)
    answer = connection.getresponse()
    begun = answer.read1(65536)
    stepped.clock.set(step)
    moment = time.monotonic()
    assert (begun + answer.read()).endswith(b"data: [DONE]\n\n")
    assert time.monotonic() - moment < 8
    connection.close()


def test_timeouts_end(stepped: Stepped, step: float) -> None:
    """A provider that is silent is given up after as long as the settings say."""
    stack = stepped.stack
    connection = HTTPConnection(HOST, stack.daemon.port, timeout=20)
    headers = {**JSON, "Authorization": f"Bearer {stack.token}", "X-Sim-Delay": "15"}
    begun = time.monotonic()
    connection.request("POST", "/v1/chat/completions", STREAM, headers)
    time.sleep(0.5)
    stepped.clock.set(step)
    answer = connection.getresponse()
    assert (answer.status, answer.getheader("X-LLMProxy-Error")) == (504, "upstream_timeout")
    assert 1.9 < time.monotonic() - begun < 6
    connection.close()


def test_what_has_a_date_follows_the_wall_clock(stepped: Stepped) -> None:
    """A budget by day is new on the next day, and a token expires at the time that was written down."""
    stack = stepped.stack
    expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 2 * DAY))
    token, token_id = limited(stack, budget_tokens="1000000/day", expires_at=expires)

    def used() -> float:
        return float(standing(stack, token_id, "budget_tokens")["used"])

    try:
        assert stack.ask("POST", "/v1/chat/completions", CHAT, JSON, token=token).status == 200
        eventually(lambda: 0 < used() < 1000)
        stepped.clock.set(DAY)
        assert used() == 0
        assert stack.ask("POST", "/v1/chat/completions", CHAT, JSON, token=token).status == 200
        stepped.clock.set(2 * DAY + 60)
        refused = stack.ask("POST", "/v1/chat/completions", CHAT, JSON, token=token)
        assert (refused.status, refused.header("X-LLMProxy-Error")) == (401, "token_expired")
    finally:
        stepped.clock.set(0)
