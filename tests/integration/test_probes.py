"""Active probes of upstreams: who gets no requests for them, who gets them again, and who hears of it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_several_upstreams import Pool, pool
from tests.support.keyed_provider import KeyedProvider
from tests.support.stack import eventually
from tests.support.workers import WorkerStack

FAST: dict[str, Any] = {"path": "/health?deep=1", "interval": "0.1s", "timeout": "10s"}
NO_KEY = ""  # what a probe without a key comes with


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    with pool(tmp_path_factory.mktemp("probes"), balance="round_robin") as made:
        yield made


@pytest.fixture
def two(shared: Pool) -> Iterator[Pool]:
    """Both work, and neither is probed; none of their states is left from other tests."""
    for provider in (shared.a, shared.b):
        provider.held.set()
        provider.says = {"k1": (200, {})}  # what comes with a project's key is well in any case
    probe(shared, path="")
    assert all(each["health"] == "unknown" and each["breaker"] == "closed" for each in shared.listed())
    yield shared
    for provider in (shared.a, shared.b):
        provider.held.set()


def probe(at: Pool, **settings: Any) -> None:
    at.stack.change(probe={**FAST, **settings})  # type: ignore[attr-defined]
    at.stack.manage("POST", "/manage/reload")


def health(at: Pool) -> list[str]:
    return [each["health"] for each in at.listed()]


def changes(at: Pool, base_url: str) -> list[str]:
    """What the events say of it."""
    mine = [each for each in at.stack.events() if each.get("base_url") == base_url]
    return [each["type"] for each in mine if str(each.get("type", "")).startswith("upstream.")]


def figure(at: Pool, sample: str) -> float:
    return next((float(line.split()[-1]) for line in at.metrics().splitlines() if line.startswith(sample + " ")), -1.0)


def test_ejected_and_restored(two: Pool) -> None:
    """One whose probes fail gets no requests though these would go well, until its probes go well again; list,
    metrics, log and events say so, the last two once for each change."""
    before, log = changes(two, two.b.url), two.stack.daemon.output()
    probe(two)
    eventually(lambda: health(two) == ["healthy", "healthy"])
    assert two.a.targets["GET /health?deep=1"] and two.a.asked[NO_KEY], "it is asked without any key"
    assert figure(two, 'llmproxy_upstream_healthy{upstream="pool/1"}') == 1
    two.b.says[NO_KEY] = (503, {})
    eventually(lambda: health(two) == ["healthy", "unhealthy"])
    shown = two.listed()[1]
    assert (shown["breaker"], shown["probe"], shown["state"]) == ("open", "503", "enabled")
    asked = two.b.asked["k1"]
    assert two.statuses(10) == {200: 10}
    assert two.b.asked["k1"] == asked
    assert figure(two, 'llmproxy_upstream_healthy{upstream="pool/1"}') == 0
    assert figure(two, 'llmproxy_upstream_available{upstream="pool/1"}') == 0
    assert figure(two, 'llmproxy_upstream_probe_failures_total{upstream="pool/1"}') >= 3
    probed = figure(two, 'llmproxy_upstream_probes_total{upstream="pool/1"}')
    eventually(lambda: figure(two, 'llmproxy_upstream_probes_total{upstream="pool/1"}') > probed)
    two.b.says[NO_KEY] = (401, {})  # it demands a key, so it works
    eventually(lambda: health(two) == ["healthy", "healthy"])
    assert two.listed()[1]["breaker"] == "closed"
    eventually(lambda: two.statuses(2) and two.b.asked["k1"] > asked)
    expected = [*before, "upstream.unhealthy", "upstream.healthy"]
    assert eventually(lambda: len(changes(two, two.b.url)) >= len(expected) and changes(two, two.b.url)) == expected
    said = two.stack.daemon.output()[len(log) :]
    assert said.count(f"the last with 503: {two.b.url}") == 1
    assert said.count(f"works again, as its probes say (401): {two.b.url}") == 1
    assert two.a.url not in said


def test_statuses(two: Pool) -> None:
    """Those that the settings name are good, and no others."""
    two.a.says[NO_KEY], two.b.says[NO_KEY] = (404, {}), (204, {})
    probe(two, status=["200-299", 302])
    eventually(lambda: health(two) == ["unhealthy", "healthy"])
    two.a.says[NO_KEY] = (302, {"Location": "/elsewhere"})  # which nobody follows
    eventually(lambda: health(two) == ["healthy", "healthy"])
    assert not two.a.targets["GET /elsewhere"]


def test_how_many_in_a_row(two: Pool) -> None:
    two.b.says[NO_KEY] = (500, {})
    before = two.b.asked[NO_KEY]
    probe(two, unhealthy=8, healthy=6)
    eventually(lambda: health(two)[1] == "unhealthy")
    assert two.b.asked[NO_KEY] - before >= 8
    two.b.says[NO_KEY] = (200, {})
    before = two.b.asked[NO_KEY]
    eventually(lambda: health(two)[1] == "healthy")
    assert two.b.asked[NO_KEY] - before >= 5  # one may have been under way


def test_one_that_does_not_answer_in_time(two: Pool) -> None:
    probe(two, timeout="0.3s", unhealthy=5)
    eventually(lambda: health(two) == ["healthy", "healthy"])
    two.b.held.clear()
    eventually(lambda: health(two) == ["healthy", "unhealthy"])
    assert two.listed()[1]["probe"] == "timeout"


def test_with_a_projects_key(two: Pool) -> None:
    two.a.says["k1"] = two.b.says["k1"] = (200, {})
    two.a.says[NO_KEY] = two.b.says[NO_KEY] = (401, {})
    before = two.a.asked[NO_KEY], two.a.targets["GET /health?deep=1"]
    probe(two, status=[200], project=two.stack.project)
    eventually(lambda: health(two) == ["healthy", "healthy"])
    assert two.a.asked[NO_KEY] == before[0] and two.a.targets["GET /health?deep=1"] > before[1]


def test_a_project_that_there_is_not(two: Pool) -> None:
    """No probe can be made, which says nothing of the upstream."""
    probe(two, project="proj-nobody")
    eventually(lambda: all(each["probe"] == "upstream_auth_error" for each in two.listed()))
    assert health(two) == ["unknown", "unknown"]
    assert two.statuses(4) == {200: 4}


def test_switched_off(two: Pool) -> None:
    """A reload that takes the probe away lets requests in again, and nobody is asked any more."""
    two.b.says[NO_KEY] = (500, {})
    probe(two)
    eventually(lambda: health(two)[1] == "unhealthy")
    probe(two, path="")
    assert health(two) == ["unknown", "unknown"]
    assert {each["breaker"] for each in two.listed()} == {"closed"}
    assert 'upstream_healthy{upstream="pool' not in two.metrics()


def test_one_that_is_disabled_is_not_asked(two: Pool) -> None:
    probe(two)
    eventually(lambda: health(two) == ["healthy", "healthy"])
    two.stack.manage("POST", "/manage/upstreams/pool/1", {"state": "disabled"})
    try:
        asked, others = two.b.asked[NO_KEY], two.a.asked[NO_KEY]
        eventually(lambda: two.a.asked[NO_KEY] > others + 5)
        assert two.b.asked[NO_KEY] <= asked + 1  # one may have been under way
    finally:
        two.stack.manage("POST", "/manage/upstreams/pool/1", {"state": "enabled"})


class _Workers(WorkerStack):
    """Two, in front of one provider by their API C{openai}."""

    def __init__(self, home: Path, provider: KeyedProvider) -> None:
        self.settings = WorkerStack.settings.replace("base_url: {provider}", f"base_url: {provider.url}", 1)
        super().__init__(home, 2, more="probe: {path: /health, interval: 0.1s}")


def test_the_only_upstream_of_two_workers(tmp_path: Path) -> None:
    """One worker probes for both. Requests of either get 503 while the upstream is unhealthy, those that the fast path
    has served until then too."""
    with KeyedProvider() as provider, _Workers(tmp_path, provider) as stack:
        provider.says["sk-sim-openai"] = (200, {})
        body = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "x"}]}).encode()

        def ask() -> int:
            return stack.ask("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"}).status

        def shown() -> dict[str, Any]:
            return next(e for e in stack.manage("GET", "/manage/upstreams")["data"] if e["api"] == "openai")

        def is_rejected() -> bool:
            return {ask() for _ in range(8)} == {503}  # each on its own connection, so that both are asked

        eventually(lambda: shown()["health"] == "healthy")
        assert {ask() for _ in range(20)} == {200}
        provider.says[NO_KEY] = (500, {})
        eventually(lambda: shown()["health"] == "unhealthy")
        eventually(is_rejected)
        refused = stack.ask("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
        assert refused["X-LLMProxy-Error"] == "circuit_open" and int(refused["Retry-After"]) >= 1
        said = stack.daemon.output()
        assert said.count("gets no requests") == 1
        del provider.says[NO_KEY]
        eventually(lambda: shown()["health"] == "healthy")
        eventually(lambda: {ask() for _ in range(8)} == {200})


def worker_pid(stack: WorkerStack, place: int) -> int:
    """The process of the worker that was ready there last."""
    lines = [json.loads(line) for line in stack.daemon.output().splitlines() if line.startswith("{")]
    return int([each["pid"] for each in lines if f"Worker {place}." in str(each) and "is ready" in str(each)][-1])


def missing(stack: WorkerStack) -> str:
    """What the ready page says of workers that are not there."""
    return str(json.loads(stack.ask("GET", "/ready").body)["checks"]["workers"])


@pytest.mark.long("6 s: another worker goes on probing")
def test_the_worker_that_probes_dies(tmp_path: Path) -> None:
    """Another one probes for all from then on, whatever keeps the first from starting again, which is said; and what it
    finds is known to one that starts."""
    with KeyedProvider() as provider, _Workers(tmp_path, provider) as stack:
        provider.says["sk-sim-openai"] = (200, {})

        def shown() -> dict[str, Any]:
            return next(e for e in stack.manage("GET", "/manage/upstreams")["data"] if e["api"] == "openai")

        eventually(lambda: shown()["health"] == "healthy")
        settings = tmp_path / "llmproxy.yaml"
        good = settings.read_text()
        settings.write_text(good + "nonsense: true\n")  # no worker can start meanwhile
        os.kill(worker_pid(stack, 1), signal.SIGKILL)
        eventually(lambda: "Worker 1.1 ended by SIGKILL" in stack.daemon.output())
        asked = provider.asked[NO_KEY]
        eventually(lambda: provider.asked[NO_KEY] >= asked + 5)
        assert missing(stack).startswith("worker 1: ")
        provider.says[NO_KEY] = (500, {})
        eventually(lambda: shown()["health"] == "unhealthy")
        eventually(lambda: "ended with status 78 (" in stack.daemon.output())
        assert "nonsense: is not a setting)" in stack.daemon.output()
        settings.write_text(good)
        eventually(lambda: missing(stack) == "ok", 60)
        assert shown()["health"] == "unhealthy"  # whichever is asked
        assert stack.daemon.output().count("gets no requests") == 1
