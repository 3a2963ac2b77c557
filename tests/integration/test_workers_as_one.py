"""What is asked of one of several workers, answered for all."""

from __future__ import annotations

import json
import os
import signal
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.support.stack import MANAGEMENT, SETTINGS, Stack, eventually
from tests.support.suspending import suspend
from tests.support.workers import WorkerStack, answering, workers_of

PATIENCE = 60.0
CHAT = "/v1/chat/completions"
STREAM = json.dumps(
    {"model": "gpt-4o", "max_tokens": 400, "stream": True, "messages": [{"role": "user", "content": "x"}]}
).encode()
ASKED = 12  # times, each over a connection of its own: by then every worker has been


def page(stack: Stack, path: str, accept: str = "application/json") -> tuple[int, str]:
    given = {"Authorization": f"Bearer {MANAGEMENT}", "Accept": accept}
    request = urllib.request.Request(stack.url + path, headers=given)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as e:
        return e.code, e.read().decode()


def counted(stack: Stack) -> int:
    return int(json.loads(page(stack, "/metrics")[1])["requests"])


def figure(stack: Stack, check: str) -> str:
    """What the metrics say of a check of the ready page: C{1.0} or C{0.0}; C{""} where they say nothing."""
    start = f'llmproxy_check_ok{{check="{check}"}} '
    lines = page(stack, "/metrics", "text/plain")[1].splitlines()
    return next((line.removeprefix(start) for line in lines if line.startswith(start)), "")


def ready(stack: Stack) -> tuple[int, dict[str, str]]:
    status, text = page(stack, "/ready")
    return status, json.loads(text)["checks"]


def answered(ask: Callable[[], Any]) -> Any:
    """What it brings; C{None} where the worker that accepted it does not answer."""
    try:
        return ask()
    except OSError:
        return None


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerStack]:
    with WorkerStack(tmp_path_factory.mktemp("three"), 3) as stack:
        yield stack


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerStack]:
    with WorkerStack(tmp_path_factory.mktemp("two"), 2) as stack:
        yield stack


@pytest.fixture(scope="module")
def unhurried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerStack]:
    """Two, which enter nothing into the ledger unless they must."""
    with WorkerStack(tmp_path_factory.mktemp("unhurried"), 2, env={"LLMPROXY_LEDGER_INTERVAL": "1h"}) as stack:
        yield stack


@pytest.fixture
def two(shared: WorkerStack) -> Iterator[WorkerStack]:
    """Of two workers, both there; the settings are in use as they were when the next test gets it."""
    settings = shared.home / "llmproxy.yaml"
    right = settings.read_text()
    eventually(lambda: is_whole(shared, 2), PATIENCE)
    try:
        yield shared
    finally:
        if settings.read_text() != right:
            settings.write_text(right)
            shared.manage("POST", "/manage/reload")


def ask_all(stack: Stack) -> None:
    """By then every worker has been asked; a request is counted once its response has left."""
    before = counted(stack)
    for _ in range(ASKED):
        stack.ask("GET", "/v1/models")
    eventually(lambda: counted(stack) == before + ASKED, PATIENCE)


def is_whole(stack: Stack, workers: int) -> bool:
    reply = answered(lambda: ready(stack))
    return reply is not None and reply[0] == 200 and len(workers_of(stack.daemon.pid)) == workers


class TestOneAnswer:
    @pytest.mark.long("1 s: sums of three workers")
    def test_metrics(self, three: WorkerStack) -> None:
        """Whoever is scraped has counted all requests; what is known of a process stands under its place."""
        before = counted(three)
        for _ in range(ASKED):
            assert three.ask("GET", "/v1/models").status == 200
        assert [counted(three) for _ in range(ASKED)] == [before + ASKED] * ASKED
        text = page(three, "/metrics", "text/plain")[1]
        assert "llmproxy_workers 3.0" in text
        for worker in (1, 2, 3):
            assert f'process_resident_memory_bytes{{worker="{worker}"}}' in text

    def test_last_requests(self, three: WorkerStack) -> None:
        """All are on the pages, and each is found by its id, whoever served it."""
        asked = uuid4().hex
        names = [f"{asked}-{number}" for number in range(ASKED)]
        for name in names:
            three.ask("GET", "/v1/models", headers={"X-Request-ID": name})

        def listed() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = []
            cursor = ""
            while True:
                answer = three.manage("GET", f"/manage/requests?limit=5&cursor={cursor}")
                found += [each for each in answer["data"] if each["request_id"].startswith(asked)]
                cursor = answer["next_cursor"]
                if not cursor:
                    return found

        eventually(lambda: len(listed()) >= ASKED, PATIENCE)  # a request is reported once its response has left
        found = listed()
        assert sorted(each["request_id"] for each in found) == sorted(names)
        # One may end later than the next, for which another worker had a processor.
        ends = [datetime.fromisoformat(each["started_at"]).timestamp() + each["duration"] for each in found]
        assert all(later > earlier - 0.003 for later, earlier in pairwise(ends)), ends
        for name in names:
            assert three.manage("GET", f"/manage/requests/{name}")["request_id"] == name

    def test_activity(self, three: WorkerStack) -> None:
        """What workers have not written yet is in it."""

        def requests() -> int:
            return int(three.manage("GET", "/manage/activity?period=1h")["total"]["requests"])

        before = requests()
        for _ in range(ASKED):
            three.ask("GET", "/v1/models")
        eventually(lambda: requests() >= before + ASKED, PATIENCE)
        assert requests() == before + ASKED

    def test_usage(self, unhurried: WorkerStack) -> None:
        """What workers have not entered yet is in it, and in what is counted of a token."""
        [token] = unhurried.manage("GET", "/manage/tokens")["data"]
        before = int(token["request_count"])
        ask_all(unhurried)
        [token] = unhurried.manage("GET", "/manage/tokens")["data"]
        assert token["request_count"] == before + ASKED
        ask_all(unhurried)
        token = unhurried.manage("GET", f"/manage/tokens/{token['id']}")
        assert token["request_count"] == before + 2 * ASKED
        ask_all(unhurried)
        [row] = unhurried.manage("GET", "/manage/usage?group_by=project")["data"]
        assert row["requests"] == before + 3 * ASKED

    def test_an_upstream_out_of_service(self, three: WorkerStack) -> None:
        """It is so in all workers, and in one that is started afterwards."""
        shown = three.manage("POST", "/manage/upstreams/openai/0", {"state": "disabled"})
        assert shown["state"] == "disabled"
        assert {three.ask("GET", "/v1/models").status for _ in range(ASKED)} == {503}
        old = workers_of(three.daemon.pid)
        for pid in old:
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: len(set(workers_of(three.daemon.pid)) - set(old)) == 3, PATIENCE)
        eventually(lambda: is_whole(three, 3), PATIENCE)
        assert {three.ask("GET", "/v1/models").status for _ in range(ASKED)} == {503}
        three.manage("POST", "/manage/upstreams/openai/0", {"state": "enabled"})
        assert {three.ask("GET", "/v1/models").status for _ in range(ASKED)} == {200}

    @pytest.mark.long("2 s: a gauge of three workers under load")
    def test_requests_under_way(self, three: WorkerStack) -> None:
        before = len(three.recorded())
        with ThreadPoolExecutor(6) as pool:
            waiting = [
                pool.submit(three.ask, "POST", CHAT, STREAM, {"X-Sim-Delay": "0,0.2", "X-Sim-Events": "50"})
                for _ in range(6)
            ]
            eventually(lambda: len(three.recorded()) == before + 6, PATIENCE)
            shown = three.manage("GET", "/manage/upstreams")["data"]
            assert next(each["in_flight"] for each in shown if each["api"] == "openai") == 6
            assert all(b"[DONE]" in each.result(PATIENCE).body for each in waiting)

    def test_the_log(self, three: WorkerStack) -> None:
        three.manage("PATCH", "/manage/logging", {"level": "warn"})
        assert {three.manage("GET", "/manage/logging")["level"] for _ in range(ASKED)} == {"warn"}
        three.manage("PATCH", "/manage/logging", {"level": "info"})

    def test_a_worker_that_hangs(self, three: WorkerStack) -> None:
        """The ready page says which one; what it had counted is still counted."""
        before = counted(three)
        workers = workers_of(three.daemon.pid)
        suspend(workers[0], three.home / "llmproxy.db")
        try:
            status, checks = eventually(lambda: answered(lambda: ready(three)), PATIENCE)
            assert status == 503
            assert checks["workers"].startswith("worker ")
            assert checks["store"] == "ok"
            assert eventually(lambda: answered(lambda: figure(three, "workers"))) == "0.0"
        finally:
            os.kill(workers[0], signal.SIGCONT)
        eventually(lambda: ready(three)[0] == 200, PATIENCE)
        assert {figure(three, name) for name in ready(three)[1]} == {"1.0"}
        assert counted(three) >= before


class TestCountersNeverFall:
    @pytest.mark.long("7 s: counters that four workers leave to others")
    def test_when_workers_are_rolled(self, two: WorkerStack) -> None:
        for _ in range(ASKED):
            two.ask("GET", "/v1/models")
        old = workers_of(two.daemon.pid)
        count = counted(two)
        assert count >= ASKED
        os.kill(two.daemon.pid, signal.SIGUSR2)
        seen = [counted(two)]

        def replaced() -> bool:
            seen.append(counted(two))
            assert figure(two, "state") == "1.0"  # those that drain are no places any more
            return not set(old) & set(workers_of(two.daemon.pid))

        eventually(replaced, PATIENCE)
        seen.append(counted(two))
        assert seen == [count] * len(seen)

    @pytest.mark.long("2 s: what the killed one had counted stays")
    def test_when_one_is_killed(self, two: WorkerStack) -> None:
        def restarts() -> int:
            return int(json.loads(page(two, "/metrics")[1])["gauges"]["worker_restarts"])

        before, restarted = counted(two), restarts()
        for _ in range(ASKED):
            two.ask("GET", "/v1/models")
        assert counted(two) == before + ASKED
        old = workers_of(two.daemon.pid)
        os.kill(old[0], signal.SIGKILL)
        eventually(lambda: len(set(workers_of(two.daemon.pid)) | set(old)) == 3, PATIENCE)
        assert counted(two) == before + ASKED
        assert restarts() == restarted + 1

    def test_what_is_counted_last(self, unhurried: WorkerStack) -> None:
        """Lines that a worker enters into the ledger when it ends are counted as well."""
        before = unhurried.metric("ledger_lines_total")
        ask_all(unhurried)
        assert unhurried.metric("ledger_lines_total") == before
        old = workers_of(unhurried.daemon.pid)
        for pid in old:
            os.kill(pid, signal.SIGTERM)
        eventually(lambda: not set(old) & set(workers_of(unhurried.daemon.pid)), PATIENCE)
        eventually(lambda: is_whole(unhurried, 2), PATIENCE)
        assert unhurried.metric("ledger_lines_total") == before + ASKED


class AsTheFileSays(WorkerStack):
    """One whose number of workers stands in the settings file."""

    settings = SETTINGS.replace("server: {{", "server: {{workers: 2, ")

    def __init__(self, home: Path, workers: int) -> None:
        super().__init__(home, workers)
        self.env.pop("LLMPROXY_SERVER_WORKERS")
        self.daemon = self.another()


class TestReload:
    def test_all_follow_or_none(self, two: WorkerStack) -> None:
        """The answer names each; a file that is wrong changes nothing anywhere, and the answer and the log say why."""
        settings = two.home / "llmproxy.yaml"
        right = settings.read_text()
        fewer = right.replace("/v1/responses, /v1/embeddings, /v1/models,", "/v1/responses, /v1/embeddings,")
        settings.write_text(fewer)
        answer = two.manage("POST", "/manage/reload")
        assert answer == {
            "changed": ["apis.openai.allowed_endpoints"], "needs_restart": [], "rolling": [],
            "workers": [{"worker": 1, "result": "reloaded"}, {"worker": 2, "result": "reloaded"}],
        }  # fmt: skip
        assert {two.ask("GET", "/v1/models").status for _ in range(ASKED)} == {403}
        settings.write_text(right + "no_such_setting: 1\n")
        with pytest.raises(urllib.error.HTTPError) as refused:
            two.manage("POST", "/manage/reload")
        assert refused.value.code == 422
        assert "no_such_setting" in refused.value.read().decode()
        assert {two.ask("GET", "/v1/models").status for _ in range(ASKED)} == {403}
        status, checks = ready(two)
        assert status == 200
        assert checks["settings"] == "not reloaded (see the log)"
        assert "no_such_setting" in two.daemon.output()
        settings.write_text(right)
        os.kill(two.daemon.pid, signal.SIGHUP)
        eventually(lambda: two.ask("GET", "/v1/models").status == 200, PATIENCE)
        eventually(lambda: ready(two)[1]["settings"] == "ok", PATIENCE)
        assert {two.ask("GET", "/v1/models").status for _ in range(ASKED)} == {200}

    def test_a_signal_to_a_worker(self, two: WorkerStack) -> None:
        """It is as one to the supervisor."""
        reloads = two.daemon.output().count("Reloaded the settings in 2 workers")
        settings = two.home / "llmproxy.yaml"
        settings.write_text(settings.read_text().replace("/v1/embeddings, /v1/models,", "/v1/embeddings,"))
        os.kill(workers_of(two.daemon.pid)[0], signal.SIGHUP)
        eventually(lambda: two.ask("GET", "/v1/models").status == 403, PATIENCE)
        eventually(lambda: two.daemon.output().count("Reloaded the settings in 2 workers") > reloads, PATIENCE)
        assert {two.ask("GET", "/v1/models").status for _ in range(ASKED)} == {403}

    @pytest.mark.long("9 s: each kind of setting for which workers are rolled")
    def test_that_needs_new_processes(self, tmp_path: Path) -> None:
        """They are rolled: another number of workers, another listener, and no request is lost."""
        with AsTheFileSays(tmp_path, 2) as stack:
            settings, old = tmp_path / "llmproxy.yaml", workers_of(stack.daemon.pid)
            socket = tmp_path / "llmproxy.sock"
            changed = settings.read_text().replace("workers: 2", "workers: 3, max_connections: 777")
            settings.write_text(changed.replace('interface=127.0.0.1"]', f'interface=127.0.0.1", "unix:{socket}"]'))
            answer = stack.manage("POST", "/manage/reload")
            assert answer["rolling"] == ["server.listen", "server.max_connections", "server.workers"]
            statuses: list[int] = []

            def rolled() -> bool:
                statuses.append(stack.ask("GET", "/v1/models").status)
                return "Rolled 3 workers" in stack.daemon.output()

            eventually(rolled, PATIENCE)
            assert set(statuses) == {200}
            eventually(lambda: not set(old) & set(workers_of(stack.daemon.pid)), PATIENCE)
            assert len(workers_of(stack.daemon.pid)) == 3
            assert socket.is_socket()
            assert ready(stack)[0] == 200


# What one process does, its supervisor does too.
ONE_OR_TWO = [1, pytest.param(2, marks=pytest.mark.long("4 s: the drain of two workers, as that of one"))]


class TestDrainDelay:
    @pytest.mark.parametrize("workers", ONE_OR_TWO)
    def test_clients_are_served_on(self, tmp_path: Path, workers: int) -> None:
        """Ready says so at once, everything goes on, and a second signal waits no longer."""
        delay = {"LLMPROXY_SERVER_DRAIN_DELAY": "3600s"}
        with Stack(tmp_path, env=delay) if workers == 1 else WorkerStack(tmp_path, workers, env=delay) as stack:
            assert ready(stack)[0] == 200
            os.kill(stack.daemon.pid, signal.SIGTERM)
            eventually(lambda: ready(stack)[0] == 503, PATIENCE)
            assert ready(stack)[1]["state"] == "draining"
            assert {stack.ask("GET", "/v1/models").status for _ in range(ASKED)} == {200}
            assert stack.daemon.stop(PATIENCE) == 0

    @pytest.mark.parametrize("workers", ONE_OR_TWO)
    def test_then_it_ends(self, tmp_path: Path, workers: int) -> None:
        delay = {"LLMPROXY_SERVER_DRAIN_DELAY": "1s"}
        with Stack(tmp_path, env=delay) if workers == 1 else WorkerStack(tmp_path, workers, env=delay) as stack:
            os.kill(stack.daemon.pid, signal.SIGTERM)
            eventually(lambda: not answering(stack.daemon.port), PATIENCE)
            eventually(lambda: stack.daemon.ended, PATIENCE)
