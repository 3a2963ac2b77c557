"""Several upstreams and keys for one API, and what is sent again: what clients see, and what providers."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import yaml

from tests.support.keyed_provider import KeyedProvider
from tests.support.processes import free_port
from tests.support.responses import Response
from tests.support.stack import MANAGEMENT, Stack, eventually
from tests.support.tls import TLSInFront
from tests.unit.wire.authority import Authority

CHAT = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "x"}]}).encode()
JSON = {"Content-Type": "application/json"}
DEAD = "dead"


class Pool:
    """A daemon in front of two providers, A and B, by its API C{pool}.

    @ivar keys: Those of its project.
    """

    def __init__(self, stack: Stack, a: KeyedProvider, b: KeyedProvider) -> None:
        self.stack, self.a, self.b = stack, a, b

    def ask(self, **fields: str) -> Response:
        headers = {**JSON, **{name.replace("_", "-"): value for name, value in fields.items()}}
        return self.stack.ask("POST", "/pool/v1/chat/completions", CHAT, headers)

    def statuses(self, count: int, **fields: str) -> Counter[int]:
        return Counter(self.ask(**fields).status for _ in range(count))

    def listed(self) -> list[dict[str, Any]]:
        return [each for each in self.stack.manage("GET", "/manage/upstreams")["data"] if each["api"] == "pool"]

    def set_keys(self, keys: Any) -> dict[str, Any]:
        return self.stack.manage("PATCH", f"/manage/projects/{self.stack.project}", {"api_keys": {"pool": keys}})

    def metrics(self) -> str:
        request = Request(f"{self.stack.url}/metrics", headers={"Authorization": f"Bearer {MANAGEMENT}"})
        with urlopen(request, timeout=10) as answer:
            return str(answer.read().decode())

    def ledger_lines(self) -> dict[str, tuple[int, str]]:
        """Attempts by the id of the request."""
        with closing(sqlite3.connect(self.stack.home / "llmproxy.db")) as database:
            lines = database.execute("SELECT request_id, attempts, attempted FROM ledger WHERE api = 'pool'").fetchall()
        assert len(lines) == len({line[0] for line in lines}), "one line for each request"
        return {line[0]: line[1:] for line in lines}

    def events(self) -> list[dict[str, Any]]:
        return [event for event in self.stack.events() if event["api"] == "pool"]


@contextmanager
def pool(home: Path, keys: Any = "k1", first: str = "", **api: Any) -> Iterator[Pool]:
    """@param first: Where A is, if not where it listens; C{DEAD}: where nobody does."""
    with ExitStack() as ends:
        a, b = ends.enter_context(KeyedProvider()), ends.enter_context(KeyedProvider())
        upstreams: list[dict[str, Any]] = api.pop("upstreams", [{}, {}])
        where = (f"http://127.0.0.1:{free_port()}" if first == DEAD else a.url, b.url)
        settings = {
            "provider": "openai",
            "allowed_endpoints": ["/v1/chat/completions"],
            "upstreams": [{"base_url": url, **each} for url, each in zip(where, upstreams, strict=False)],
            **api,
        }
        stack = _PoolStack(home, settings)
        ends.enter_context(stack)
        made = Pool(stack, a, b)
        made.set_keys(keys)
        yield made


class _PoolStack(Stack):
    def __init__(self, home: Path, api: dict[str, Any]) -> None:
        self.settings = Stack.settings.replace(
            "server:", f"  pool: {json.dumps(api).replace('{', '{{').replace('}', '}}')}\nserver:", 1
        )
        Stack.__init__(self, home)

    def change(self, **api: Any) -> None:
        """Write other settings of the API into the file."""
        path = self.home / "llmproxy.yaml"
        settings = yaml.safe_load(path.read_text())
        settings["apis"]["pool"].update(api)
        path.write_text(json.dumps(settings))


def test_one_is_dead(tmp_path: Path) -> None:
    """Clients do not notice, though `retries` is as it is by default; after a while it is not even tried."""
    with pool(tmp_path, first=DEAD, circuit_breaker={"failures": 3, "cooldown": "600s"}) as p:
        assert p.statuses(20) == {200: 20}
        assert [each["breaker"] for each in p.listed()] == ["open", "closed"]
        moved = [event["attempted"] for event in eventually(lambda: len(p.events()) >= 20 and p.events())]
        assert Counter(moved) == {"0/0:connect 1/0:200": 3, "": 17}


def test_attempts_in_the_books(tmp_path: Path) -> None:
    """Event, list of requests and the ledger's one line all tell of each attempt, and of which key and upstream."""
    with pool(
        tmp_path, keys=["k1", "k2"], balance="failover", retries={"attempts": 3, "on": [503], "backoff": "0s"}
    ) as p:
        p.a.says = {"k1": (401, {}), "k2": (503, {})}
        assert p.ask(X_Request_ID="tried").status == 200
        p.a.says[""] = p.b.says[""] = (503, {})
        p.b.says = {"k1": (503, {}), "k2": (503, {})}
        assert p.ask(X_Request_ID="failed").status == 503
        p.b.says.clear()
        p.stack.manage("POST", "/manage/upstreams/pool/0", {"state": "disabled"})
        assert p.ask(X_Request_ID="usual").status == 200
        expected = {"tried": (3, "0/0:401 0/1:503 1/0:200"), "failed": (3, "0/1:503 1/0:503 1/0:503"), "usual": (1, "")}
        events = eventually(lambda: len(p.events()) >= 3 and p.events())
        assert {each["request_id"]: (each["attempts"], each["attempted"]) for each in events} == expected
        assert all(each["auth_time"] >= 0 and each["queue_time"] >= 0 and "steps" not in each for each in events)
        for request_id, attempts in expected.items():
            shown = p.stack.manage("GET", f"/manage/requests/{request_id}")
            assert (shown["attempts"], shown["attempted"]) == attempts
            told = [(s["upstream"], s["key"], s["result"]) for s in shown["timeline"] if s["step"] == "attempt"]
            assert " ".join(f"{upstream}/{key}:{result}" for upstream, key, result in told) == attempts[1] or (
                attempts[1] == "" and told == [(1, 0, "200")]
            )
            assert shown["timeline"][-1]["step"] == "response" and shown["timeline"][0]["step"] == "auth"
            ends = [each["at"] + each["seconds"] for each in shown["timeline"]]
            assert ends == sorted(ends) and abs(ends[-1] - shown["duration"]) < 0.001, shown
        assert eventually(lambda: len(p.ledger_lines()) >= 3 and p.ledger_lines()) == expected


def test_weight_and_round_robin(tmp_path: Path) -> None:
    with pool(tmp_path, balance="round_robin", upstreams=[{"weight": 3}, {"weight": 1}]) as p:
        assert p.statuses(20) == {200: 20}
        assert (p.a.total, p.b.total) == (15, 5)


def test_least_busy(tmp_path: Path) -> None:
    """While one is slow the other gets the rest."""
    with pool(tmp_path) as p:
        p.a.held.clear()
        slow = threading.Thread(target=p.ask)
        slow.start()
        eventually(lambda: p.a.total or p.b.total)
        if p.b.total:  # it was its turn
            slow.join(30)
            slow = threading.Thread(target=p.ask)
            slow.start()
            eventually(lambda: p.a.total)
        before = p.b.total
        assert p.statuses(5) == {200: 5}
        assert (p.a.total, p.b.total) == (1, before + 5)
        assert [each["in_flight"] for each in p.listed()] == [1, 0]
        p.a.held.set()
        slow.join(30)


def test_priority_and_failover(tmp_path: Path) -> None:
    """The second gets requests only while the first cannot take them."""
    for balance, priority in (("failover", 0), ("least_busy", 1)):
        home = tmp_path / balance
        home.mkdir()
        with pool(home, balance=balance, upstreams=[{}, {"priority": priority}], retries={"attempts": 2, "on": [503]},
                  circuit_breaker={"failures": 2, "cooldown": "1s"}) as p:  # fmt: skip
            assert p.statuses(5) == {200: 5}
            assert (p.a.total, p.b.total) == (5, 0)
            p.a.says[""] = (503, {})
            assert p.statuses(5) == {200: 5}
            assert (p.a.total, p.b.total) == (7, 5), "two failures, and its breaker is open"
            p.a.says.clear()
            eventually(lambda p=p: p.ask().status == 200 and p.a.total > 8)  # a probe closes it


def test_three_keys(tmp_path: Path) -> None:
    """One is revoked, one is at its limit: clients see neither, and each is left alone."""
    with pool(tmp_path, keys=["k1", "k2", "k3"], upstreams=[{}], key_cooldown="600s") as p:
        p.a.says = {"k1": (401, {}), "k2": (429, {"Retry-After": "300"})}
        assert p.statuses(30) == {200: 30}
        assert p.a.asked == {"k1": 1, "k2": 1, "k3": 30}
        (upstream,) = p.listed()
        out = {key["status"]: key["cooldown"] for key in upstream["keys"]}
        assert set(out) == {401, 429}
        assert 590 < out[401] <= 600
        assert 290 < out[429] <= 300
        shown = p.stack.manage("GET", f"/manage/projects/{p.stack.project}")["api_keys"]["pool"]
        assert len(shown) == 3
        assert "k1" not in json.dumps(shown)
        p.set_keys(["k1", "k4"])  # another is tried at once
        assert p.statuses(4) == {200: 4}
        assert (p.a.asked["k1"], p.a.asked["k4"]) == (1, 4)
        p.a.says.clear()
        p.stack.manage("POST", "/manage/upstreams/pool/0", {"state": "enabled"})  # which lets all of them in again
        assert p.statuses(4) == {200: 4}
        assert (p.a.asked["k1"], p.a.asked["k4"]) == (3, 6)


def test_no_key_will_do(tmp_path: Path) -> None:
    """The provider says so itself, and is asked once for each request."""
    with pool(tmp_path, keys=["k1", "k2"], upstreams=[{}]) as p:
        p.a.says[""] = (429, {"Retry-After": "300"})
        got = p.ask()
        assert (got.status, got.header("Retry-After"), p.a.total) == (429, "300", 2)
        assert p.statuses(5) == {429: 5}
        assert p.a.total == 7


def test_one_key_alone(tmp_path: Path) -> None:
    """Whatever it is answered is the client's, and it is tried each time."""
    with pool(tmp_path, upstreams=[{}]) as p:
        p.a.says[""] = (401, {})
        assert p.statuses(6) == {401: 6}
        assert p.a.total == 6
        p.a.says.clear()
        assert p.statuses(6) == {200: 6}


def test_affinity(tmp_path: Path) -> None:
    """Requests of one session go to one upstream with one key; without a session those that begin alike do."""
    headers = {"headers": ["X-Session"]}
    with pool(tmp_path, keys=["k1", "k2", "k3"], balance="affinity", affinity=headers) as p:
        for session in map(str, range(12)):
            assert p.statuses(4, X_Session=session) == {200: 4}
        assert p.statuses(6) == {200: 6}
        for session in (*map(str, range(12)), ""):
            keys = [provider.sessions.get(session, set()) for provider in (p.a, p.b)]
            assert sum(map(len, keys)) == 1, session
        assert len(p.a.asked) + len(p.b.asked) > 2, "not all the same"


def test_codex(tmp_path: Path) -> None:
    """Its sessions have a field with an underscore, which goes on as it is and is what its requests are kept together
    by; what would be framing with hyphens is refused as ever."""
    with pool(tmp_path, keys=["k1", "k2", "k3"], balance="affinity") as p:
        for session in map(str, range(8)):
            for name in ("session_id", "Session_Id"):
                sent = {**JSON, name: session, "conversation_id": "c", "thread_id": "t"}
                assert p.stack.ask("POST", "/pool/v1/chat/completions", CHAT, sent).status == 200
            assert sum(len(each.sessions.get(session, ())) for each in (p.a, p.b)) == 1
        assert len(p.a.asked) + len(p.b.asked) > 2, "not all the same"
        for name in ("Content_Length", "X_Forwarded_For", "other_id"):
            assert p.stack.ask("POST", "/pool/v1/chat/completions", CHAT, {**JSON, name: "5"}).status == 400


def test_an_outage(tmp_path: Path) -> None:
    """However often each request might be sent again, providers get a fifth more."""
    retries = {"attempts": 5, "on": ["connect", 503], "budget": "20%", "backoff": "1ms"}
    with pool(tmp_path, retries=retries, circuit_breaker={"failures": 0}) as p:
        p.a.says[""] = p.b.says[""] = (503, {})
        assert p.statuses(100) == {503: 100}
        assert 100 < p.a.total + p.b.total <= 123
        again = p.a.total + p.b.total - 100
        assert f'llmproxy_upstream_retries_total{{api="pool"}} {again}.0' in p.metrics()
        assert 'llmproxy_upstream_available{upstream="pool/1"} 1.0' in p.metrics()


def test_one_project_alone(tmp_path: Path) -> None:
    """Whose requests fail is kept away, and for how many projects that is so is shown; others are served. One request
    at a time finds out whether it works again."""
    with pool(tmp_path, upstreams=[{}], circuit_breaker={"failures": 3, "cooldown": "2s"}) as p:
        other = p.stack.manage("POST", "/manage/projects", {"name": "Other", "api_keys": {"pool": "k2"}})["id"]
        token = p.stack.manage("POST", "/manage/tokens", {"project_id": other})["token"]
        p.a.says["k1"] = (503, {})
        assert p.statuses(6) == {503: 6}
        assert p.a.asked == {"k1": 3}
        assert p.stack.ask("POST", "/pool/v1/chat/completions", CHAT, JSON, token=token).status == 200
        [shown] = p.listed()
        assert (shown["breaker"], shown["projects_out"]) == ("closed", 1)
        assert 'llmproxy_upstream_projects_out{upstream="pool/0"} 1.0' in p.metrics()
        p.a.says.clear()
        p.a.held.clear()
        with ThreadPoolExecutor(8) as clients:
            asking: list[Future[Response]] = []

            def one_more() -> bool:
                asking.append(clients.submit(p.ask))
                wait(asking[-1:], 0.2)
                return p.a.asked["k1"] == 4

            eventually(one_more)
            asking += [clients.submit(p.ask) for _ in range(7)]  # while that one is out
            eventually(lambda: sum(each.done() for each in asking) == len(asking) - 1)
            p.a.held.set()
            assert Counter(each.result(30).status for each in asking) == {503: len(asking) - 1, 200: 1}
        assert p.statuses(4) == {200: 4}
        assert p.listed()[0]["projects_out"] == 0


def test_again_with_the_same(tmp_path: Path) -> None:
    """One upstream and one key: after the pause that the provider asks for, and not where that is too long; whichever
    way the request takes."""
    with pool(tmp_path, upstreams=[{}], retries={"attempts": 2, "on": [429], "budget": "100%", "backoff": "1ms"}) as p:
        assert p.statuses(4) == {200: 4}
        p.a.says[""] = (429, {"Retry-After": "0"})
        assert p.statuses(2) == {429: 2}
        assert p.a.total == 8
        assert eventually(lambda: len(p.events()) >= 6 and p.events())[-1]["attempts"] == 2
        p.a.says[""] = (429, {"Retry-After": "11"})
        assert p.ask().status == 429
        assert p.a.total == 9
        p.a.says[""] = (500, {})
        assert p.ask().status == 500
        assert p.a.total == 10


def test_error_ratio(tmp_path: Path) -> None:
    """Opens the breaker where failures are not in a row."""
    breaker = {"failures": 0, "error_ratio": "50%", "min_requests": 4, "window": "600s", "cooldown": "600s"}
    with pool(tmp_path, upstreams=[{}], circuit_breaker=breaker) as p:
        for status in (200, 500, 200):
            p.a.says[""] = (status, {})
            assert p.ask().status == status
        p.a.says[""] = (500, {})
        assert p.ask().status == 500
        got = p.ask()
        assert (got.status, got.header("X-LLMProxy-Error"), p.a.total) == (503, "circuit_open", 4)


def test_error_ratio_over_a_window(tmp_path: Path) -> None:
    """What was longer ago than `window` does not count."""
    breaker = {"failures": 0, "error_ratio": "100%", "min_requests": 2, "window": "1s", "cooldown": "600s"}
    with pool(tmp_path, upstreams=[{}], circuit_breaker=breaker) as p:
        p.a.says[""] = (500, {})
        for _ in range(3):
            assert p.ask().status == 500
            time.sleep(1.2)  # time is what this is about
        assert p.a.total == 3


def test_backoff(tmp_path: Path) -> None:
    """Without any all attempts fit into a time in which, doubled eight times, its default would not."""
    retries = {"attempts": 10, "on": [503], "budget": "100%", "backoff": "0s"}
    with pool(tmp_path, upstreams=[{}], retries=retries, circuit_breaker={"failures": 0},
              timeouts={"request": "4s"}) as p:  # fmt: skip
        assert p.statuses(10) == {200: 10}
        p.a.says[""] = (503, {})
        assert p.ask().status == 503
        assert p.a.total == 20


def test_authorities_of_its_own(tmp_path: Path) -> None:
    """`ca_file` of one upstream: the other, whose certificate nobody trusts, is passed over."""
    authority = Authority(tmp_path)
    authority.server("127.0.0.1")
    pem = tmp_path / "server.pem"
    with ExitStack() as ends:
        provider = ends.enter_context(KeyedProvider())
        ports = [ends.enter_context(TLSInFront(pem, provider.port)) for _ in range(2)]
        urls = [f"https://127.0.0.1:{port}" for port in ports]
        upstreams = [{"base_url": urls[0]}, {"base_url": urls[1], "ca_file": authority.ca_file}]
        api = {"allowed_endpoints": ["/v1/chat/completions"], "balance": "round_robin", "upstreams": upstreams}
        p = Pool(ends.enter_context(_PoolStack(tmp_path, api)), provider, provider)
        p.set_keys("k1")
        assert p.statuses(4) == {200: 4}
        attempted = [event["attempted"] for event in eventually(lambda: len(p.events()) >= 4 and p.events())]
        assert {"0/0:connect 1/0:200", ""} == set(attempted)


def test_drain(tmp_path: Path) -> None:
    """One of two is taken out of service: the other serves, also after a reload, which keeps what did not change."""
    with pool(tmp_path) as p:
        assert p.stack.manage("POST", "/manage/upstreams/pool/0", {"state": "draining"})["state"] == "draining"
        assert p.statuses(6) == {200: 6}
        assert (p.a.total, p.b.total) == (0, 6)
        p.stack.change(upstreams=[{"base_url": p.b.url, "weight": 2}, {"base_url": p.a.url}])
        p.stack.manage("POST", "/manage/reload")
        assert [(each["weight"], each["state"]) for each in p.listed()] == [(2, "enabled"), (1, "draining")]
        assert p.statuses(6) == {200: 6}
        assert p.a.total == 0
        p.stack.manage("POST", "/manage/upstreams/pool/0", {"state": "disabled"})
        got = p.ask()
        assert (got.status, got.header("X-LLMProxy-Error")) == (503, "upstream_disabled")
        p.stack.manage("POST", "/manage/upstreams/pool/1", {"state": "enabled"})
        assert p.statuses(2) == {200: 2}
        assert p.a.total == 2
