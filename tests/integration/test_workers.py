"""Several workers behind one supervisor, as real processes."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.support.processes import HOST
from tests.support.stack import Stack, eventually
from tests.support.taking_turns import refused_by_turns
from tests.support.workers import WorkerStack, answering, is_running, workers_of

CHAT = "/v1/chat/completions"
BODY = json.dumps({"model": "gpt-4o", "max_tokens": 400, "messages": [{"role": "user", "content": "x" * 200}]}).encode()
STREAM = json.dumps(
    {"model": "gpt-4o", "max_tokens": 400, "stream": True, "messages": [{"role": "user", "content": "x"}]}
).encode()
PATIENCE = 60.0


def limited(stack: Stack, **limits: Any) -> tuple[str, str]:
    made = stack.manage("POST", "/manage/tokens", {"project_id": stack.project, **limits})
    return str(made["token"]), str(made["id"])


def at_once(stack: Stack, token: str, count: int, clients: int = 16) -> list[int]:
    """The statuses of so many requests, each on a connection of its own."""
    with ThreadPoolExecutor(clients) as pool:
        return list(pool.map(lambda _: stack.ask("POST", CHAT, BODY, token=token).status, range(count)))


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerStack]:
    with WorkerStack(tmp_path_factory.mktemp("four"), 4) as stack:
        yield stack


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerStack]:
    with WorkerStack(tmp_path_factory.mktemp("two"), 2, further="cache: {default_ttl: 1h}\n") as stack:
        yield stack


@pytest.fixture
def two(shared: WorkerStack) -> Iterator[WorkerStack]:
    """Of two workers, both there; the settings are as they were when the next test gets it."""
    settings = shared.home / "llmproxy.yaml"
    right = settings.read_text()
    eventually(lambda: answered_ready(shared) and len(workers_of(shared.daemon.pid)) == 2, PATIENCE)
    try:
        yield shared
    finally:
        settings.write_text(right)


def answered_ready(stack: Stack) -> bool:
    try:
        return stack.ask("GET", "/ready").status == 200
    except OSError:  # the worker that took it was killed
        return False


class TestLimitsOfFourWorkersWithoutRedis:
    @pytest.mark.alone  # as with four daemons in test_limits
    @pytest.mark.long("4 s: one client at a time, at four busy workers")
    def test_one_after_the_other_by_turns(self, four: WorkerStack) -> None:
        """One at a time is allowed: whoever goes on at the next worker, once the response has come, never meets
        itself."""
        token, _ = limited(four, concurrency=1)
        busy_token, _ = limited(four, concurrency=100)
        assert refused_by_turns([four.daemon.port] * 12, token, busy_token, (BODY, STREAM), 80) == []

    def test_a_rate(self, four: WorkerStack) -> None:
        token, _ = limited(four, requests_per_minute=40)
        statuses = at_once(four, token, 120)
        assert (statuses.count(200), statuses.count(429)) == (40, 80)

    def test_requests_at_once(self, four: WorkerStack) -> None:
        """Ten streams are let in, wherever they arrive; when they are over there is room again."""
        token, token_id = limited(four, concurrency=10)

        def stream(_: int) -> int:
            return four.ask("POST", CHAT, STREAM, {"X-Sim-Delay": "0,0.1", "X-Sim-Events": "50"}, token=token).status

        with ThreadPoolExecutor(40) as pool:
            statuses = list(pool.map(stream, range(40)))
        assert (statuses.count(200), statuses.count(429)) == (10, 30)

        def free() -> bool:
            shown = four.manage("GET", f"/manage/tokens/{token_id}")["limits"]
            return next(each["used"] for each in shown if each["limit"] == "concurrency") == 0

        eventually(free, PATIENCE)
        assert four.ask("POST", CHAT, BODY, token=token).status == 200

    def test_a_budget(self, four: WorkerStack) -> None:
        token, _ = limited(four, budget_usd="0.02/day")
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda _: four.ask("POST", CHAT, BODY, token=token), range(120)))
        used = [answer.json["usage"] for answer in answers if answer.status == 200]
        spent = sum(usage["prompt_tokens"] * 2.5 + usage["completion_tokens"] * 10 for usage in used) / 1e6
        assert {answer.status for answer in answers} <= {200, 429}
        assert 0 < spent <= 0.02

    @pytest.mark.long("4 s: slots of a worker that was killed")
    def test_a_killed_worker_leaves_what_it_held(self, four: WorkerStack) -> None:
        """Its streams break; what they held of the concurrency is free, and another worker takes its place."""
        token, _ = limited(four, concurrency=8)

        def stream() -> None:
            try:
                four.ask("POST", CHAT, STREAM, {"X-Sim-Delay": "0,0.5", "X-Sim-Events": "200"}, token=token)
            except Exception:  # its worker is killed
                return

        before = len(four.recorded())
        for _ in range(8):
            Thread(target=stream, daemon=True).start()
        eventually(lambda: len(four.recorded()) == before + 8, PATIENCE)
        assert four.ask("POST", CHAT, BODY, token=token).status == 429
        killed = workers_of(four.daemon.pid)
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: len(set(workers_of(four.daemon.pid)) - set(killed)) == 4, PATIENCE)
        eventually(lambda: four.ask("POST", CHAT, BODY, token=token, timeout=90).status == 200, PATIENCE)


def test_how_they_are_started_here(two: WorkerStack) -> None:
    """Forked where their modules are loaded already; those that are started as usual are in C{test_sections},
    C{test_start} and C{test_signals}."""
    workers = workers_of(two.daemon.pid)
    commands = {Path(f"/proc/{pid}/cmdline").read_bytes() for pid in (two.daemon.pid, *workers)}
    assert len(workers) == 2 and len(commands) == 1 and b"multiprocessing.forkserver" in commands.pop()


class TestWhatIsSaidToOneWorker:
    @pytest.mark.long("5 s: a purge of four caches")
    def test_a_purge_is_for_all(self, two: WorkerStack) -> None:
        """What two workers have stored is removed with one call, whoever gets it."""
        two.manage("POST", "/manage/cache/purge", {"all": True})

        def status() -> str:
            return str(two.ask("GET", "/v1/models").header("X-Cache-Status"))

        hits: list[bool] = []

        def everywhere() -> bool:
            hits.append(status() == "hit")
            return hits[-30:] == [True] * 30

        eventually(everywhere, PATIENCE)
        stored = hits.count(False)
        removed = two.manage("POST", "/manage/cache/purge", {"all": True})["removed"]
        assert removed == stored, hits

    def test_a_change_is_known_to_all(self, two: WorkerStack) -> None:
        """What is changed through one worker is stale for the other one, too (RFC 9111, section 4.4)."""
        path, fields = "/anything/v1/models?changes=1", {"Authorization": f"Bearer {two.token}"}
        cacheable = fields | {"X-Sim-Header": "Cache-Control: public, max-age=3600"}
        lines = [HTTPConnection(HOST, two.daemon.port, timeout=30) for _ in range(12)]

        def ask(line: HTTPConnection, method: str, more: dict[str, str]) -> Any:
            line.request(method, path, headers=more)
            answer = line.getresponse()
            answer.read()
            return answer

        def misses() -> int:
            found = [ask(line, "GET", cacheable).headers["X-Cache-Status"] != "hit" for line in lines]
            return found.count(True)

        def is_missed_by_both() -> bool:
            nonlocal missed
            missed += misses()
            return missed == 2

        missed = misses()
        while missed < 2:  # all of them are one worker's
            lines.append(HTTPConnection(HOST, two.daemon.port, timeout=30))
            missed += misses()
        for method in ("DELETE", "PUT", "POST"):
            for line in lines:
                assert ask(line, method, fields | {"X-Sim-Status": "200"}).status == 200
                missed = 0
                eventually(is_missed_by_both)
                assert misses() == 0
        for line in lines:
            line.close()


class TestASupervisor:
    def test_replaces_a_worker_that_was_killed(self, two: WorkerStack) -> None:
        """Meanwhile the other one serves, and no line of the ledger is lost."""
        project = two.manage("POST", "/manage/projects", {"name": "killed", "api_keys": dict(two.keys)})["id"]
        token = two.new_token(project_id=project)
        answered = [two.ask("POST", CHAT, BODY, token=token).status for _ in range(20)]
        first, second = workers_of(two.daemon.pid)
        os.kill(first, signal.SIGKILL)
        answered += [two.ask("POST", CHAT, BODY, token=token).status for _ in range(20)]
        eventually(lambda: len(workers_of(two.daemon.pid)) == 2, PATIENCE)
        assert second in workers_of(two.daemon.pid)
        assert answered == [200] * 40

        def lines() -> bool:
            rows = two.manage("GET", f"/manage/usage?group_by=project&project_id={project}")["data"]
            return sum(row["requests"] for row in rows) == 40

        eventually(lines, PATIENCE)

    @pytest.mark.long("4 s: a drain of workers, as of one process")
    def test_lets_streams_finish_and_exits_with_0(self, tmp_path: Path) -> None:
        with ThreadPoolExecutor(8) as pool, WorkerStack(tmp_path, 2) as stack:
            before = len(stack.recorded())
            streams = [
                pool.submit(stack.ask, "POST", CHAT, STREAM, {"X-Sim-Delay": "0,0.1", "X-Sim-Events": "30"})
                for _ in range(8)
            ]
            eventually(lambda: len(stack.recorded()) == before + 8, PATIENCE)
            pids = workers_of(stack.daemon.pid)
            assert stack.daemon.stop(PATIENCE) == 0
            assert all(b"[DONE]" in each.result().body for each in streams)
            assert not any(map(is_running, pids))

    @pytest.mark.long("3 s: a second signal cuts, as with one process")
    def test_that_is_told_twice_cuts(self, tmp_path: Path) -> None:
        with ThreadPoolExecutor(1) as pool, WorkerStack(tmp_path, 2) as stack:
            before = len(stack.recorded())
            stream = pool.submit(stack.ask, "POST", CHAT, STREAM, {"X-Sim-Delay": "0,1", "X-Sim-Events": "600"})
            eventually(lambda: len(stack.recorded()) == before + 1, PATIENCE)
            os.kill(stack.daemon.pid, signal.SIGTERM)
            eventually(lambda: not answering(stack.daemon.port), PATIENCE)
            assert not stream.done()
            assert stack.daemon.stop(PATIENCE) == 0
            assert stream.exception(PATIENCE) is not None

    @pytest.mark.long("4 s: no worker outlives its supervisor")
    def test_that_is_killed_takes_its_workers_along(self, tmp_path: Path) -> None:
        """Once their requests are over: nobody is cut."""
        with ThreadPoolExecutor(1) as pool, WorkerStack(tmp_path, 2) as stack:
            before = len(stack.recorded())
            stream = pool.submit(stack.ask, "POST", CHAT, STREAM, {"X-Sim-Delay": "0,0.1", "X-Sim-Events": "30"})
            eventually(lambda: len(stack.recorded()) == before + 1, PATIENCE)
            pids = workers_of(stack.daemon.pid)
            stack.daemon.kill()
            assert b"[DONE]" in stream.result(PATIENCE).body
            eventually(lambda: not any(map(is_running, pids)), PATIENCE)

    def test_whose_workers_cannot_start_says_why(self, tmp_path: Path) -> None:
        stack = WorkerStack(tmp_path, 2, env={"LLMPROXY_STORE_URL": f"sqlite:///{tmp_path}/llmproxy.yaml/x.db"})
        with pytest.raises(AssertionError, match="llmproxy cannot start: "), stack:
            pass

    @pytest.mark.long("2 s: under load, as of a hot restart")
    def test_rolls_its_workers(self, two: WorkerStack) -> None:
        """Fresh processes serve, the supervisor's id stays, streams on the old ones finish and no request fails."""
        rolls = two.daemon.output().count("Rolled 2 workers")
        with ThreadPoolExecutor(5) as pool:
            before, old = len(two.recorded()), workers_of(two.daemon.pid)
            streams = [
                pool.submit(two.ask, "POST", CHAT, STREAM, {"X-Sim-Delay": "0,0.2", "X-Sim-Events": "40"})
                for _ in range(4)
            ]
            eventually(lambda: len(two.recorded()) == before + 4, PATIENCE)
            os.kill(two.daemon.pid, signal.SIGUSR2)
            statuses: list[int] = []

            def rolled() -> bool:
                statuses.append(two.ask("POST", CHAT, BODY).status)
                return two.daemon.output().count("Rolled 2 workers") > rolls

            eventually(rolled, PATIENCE)
            assert set(statuses) == {200}
            assert all(each.result(PATIENCE).body.rstrip().endswith(b"[DONE]") for each in streams)
            eventually(lambda: not set(old) & set(workers_of(two.daemon.pid)), PATIENCE)
            assert len(workers_of(two.daemon.pid)) == 2

    def test_goes_on_with_its_workers_where_new_ones_cannot_start(self, two: WorkerStack) -> None:
        refused, old = two.daemon.output().count("Not rolled"), workers_of(two.daemon.pid)
        settings = two.home / "llmproxy.yaml"
        settings.write_text(settings.read_text() + "no_such_setting: 1\n")
        os.kill(two.daemon.pid, signal.SIGUSR2)
        eventually(lambda: two.daemon.output().count("Not rolled") > refused, PATIENCE)
        assert workers_of(two.daemon.pid) == old
        assert two.ask("POST", CHAT, BODY).status == 200
