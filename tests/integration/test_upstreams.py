"""Providers that are taken out of service, and a log that is told to say more."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path

from tests.support.stack import MANAGEMENT, Stack, eventually

CHAT = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "x"}]}).encode()
JSON = {"Content-Type": "application/json"}


def test_a_provider_is_drained_and_enabled(tmp_path: Path) -> None:
    """Requests under way go on, new ones get 503, also with a head that has a flow; other APIs are not touched."""
    with Stack(tmp_path) as stack:
        for _ in range(4):
            assert stack.ask("POST", "/v1/chat/completions", CHAT, JSON).status == 200
        statuses: list[int] = []

        def slow() -> None:
            statuses.append(stack.ask("POST", "/v1/chat/completions", CHAT, {**JSON, "X-Sim-Delay": "1.5"}).status)

        thread = threading.Thread(target=slow)
        thread.start()
        listed = eventually(lambda: (u := stack.manage("GET", "/manage/upstreams")["data"][0])["in_flight"] and u)
        assert (listed["api"], listed["state"], listed["breaker"]) == ("openai", "enabled", "closed")
        assert stack.manage("POST", "/manage/upstreams/openai/0", {"state": "draining"})["state"] == "draining"
        refused = stack.ask("POST", "/v1/chat/completions", CHAT, JSON)
        assert (refused.status, refused.header("X-LLMProxy-Error")) == (503, "upstream_disabled")
        assert stack.ask("POST", "/mistral/v1/chat/completions", CHAT, JSON).status == 200
        thread.join(30)
        assert statuses == [200]
        stack.manage("POST", "/manage/reload")
        assert stack.ask("POST", "/v1/chat/completions", CHAT, JSON).status == 503
        stack.manage("POST", "/manage/upstreams/openai/0", {"state": "enabled"})
        assert stack.ask("POST", "/v1/chat/completions", CHAT, JSON).status == 200


def test_a_full_provider_says_when_to_come_back(tmp_path: Path) -> None:
    """One connection, taken: who waits in vain for it is told for how long to stay away."""
    with Stack(
        tmp_path, more="timeouts: {connect: 1s}\n    connection: {max_conns_per_host: 1, max_open_per_project: 10}"
    ) as stack:
        assert stack.ask("POST", "/v1/chat/completions", CHAT, JSON).status == 200
        statuses: list[int] = []

        def slow() -> None:
            statuses.append(stack.ask("POST", "/v1/chat/completions", CHAT, {**JSON, "X-Sim-Delay": "8"}).status)

        thread = threading.Thread(target=slow)
        thread.start()
        eventually(lambda: stack.manage("GET", "/manage/upstreams")["data"][0]["in_flight"])
        refused = stack.ask("POST", "/v1/chat/completions", CHAT, JSON)
        assert (refused.status, refused.header("X-LLMProxy-Error")) == (503, "upstream_busy")
        assert refused.header("Retry-After") == "1"
        thread.join(30)
        assert statuses == [200]


def test_the_log_says_more(tmp_path: Path) -> None:
    with Stack(tmp_path) as stack:
        assert stack.manage("GET", "/manage/logging") == {"level": "info"}
        assert stack.manage("PATCH", "/manage/logging", {"level": "error"}) == {"level": "error"}
        stack.manage("POST", "/manage/reload")
        assert "Reloaded the settings" in stack.daemon.output(), "those of the settings are in force again"
        assert stack.manage("GET", "/manage/logging") == {"level": "info"}


def test_projects_take_turns(tmp_path: Path) -> None:
    """One connection, and a project that has many requests waiting: another's one is served after the next of these."""
    with Stack(
        tmp_path, more="timeouts: {connect: 25s}\n    connection: {max_conns_per_host: 1, max_open_per_project: 50}"
    ) as stack:
        other = stack.manage("POST", "/manage/projects", {"name": "Other", "api_keys": dict(stack.keys)})["id"]
        tokens = {"many": stack.token, "one": stack.new_token(project_id=other)}
        done: list[tuple[str, int]] = []

        def ask(who: str, delay: str) -> threading.Thread:
            def run() -> None:
                headers = {**JSON, "X-Sim-Delay": delay}
                answer = stack.ask("POST", "/v1/chat/completions", CHAT, headers, token=tokens[who])
                done.append((who, answer.status))

            thread = threading.Thread(target=run)
            thread.start()
            return thread

        def waiting() -> float:
            text = stack.ask("GET", "/metrics", token=MANAGEMENT).body.decode()
            found = re.search(r'^llmproxy_upstream_requests_waiting{api="openai"} (\S+)$', text, re.MULTILINE)
            assert found is not None
            return float(found[1])

        threads = [ask("many", "4")]
        eventually(lambda: stack.manage("GET", "/manage/upstreams")["data"][0]["in_flight"])
        threads += [ask("many", "0.3") for _ in range(8)]
        eventually(lambda: waiting() == 8)
        threads.append(ask("one", "0.3"))
        for thread in threads:
            thread.join(40)
        assert sorted(done) == [("many", 200)] * 9 + [("one", 200)]
        assert done.index(("one", 200)) <= 3, done
