"""StartObserver, stopping, refusing to start, and what an operator looks at."""

from __future__ import annotations

import json
import os
import re
import socket
import stat
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.support.processes import HOST, Daemon, free_port, run_command
from tests.support.stack import ENCRYPTION, KEYS, MANAGEMENT, Stack, eventually

TWISTD = Path(sys.executable).with_name("twistd")
BROKEN = """\
default_api: nowhere
apis:
  openai:
    provider: opanai
    base_url: ftp://api.openai.com
    allowed_endpoints: []
    allowed_methods: [FETCH]
    timeouts: {request: fast}
    colour: blue
  openai: {}
  other:
    base_url: ${NOT_SET_ANYWHERE}
    allowed_endpoints: [/v1/x]
"""


def check(text: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    config = tmp_path / "apis.yaml"
    config.write_text(text)
    return run_command([TWISTD, "-n", "--pidfile=", "llmproxy", "--config", config, "--check"], cwd=tmp_path)


def test_check_tells_everything_that_is_wrong_at_once(tmp_path: Path) -> None:
    done = check(BROKEN, tmp_path)
    assert done.returncode == 78
    places = dict.fromkeys(re.findall(r"apis\.yaml:(\d+):\d+: ", done.stderr))
    assert {"1", "4", "5", "6", "7", "8", "9", "10", "12"} <= set(places), done.stderr


def test_a_broken_file_never_starts(tmp_path: Path) -> None:
    config = tmp_path / "apis.yaml"
    config.write_text(BROKEN)
    done = run_command([TWISTD, "-n", "--pidfile=", "llmproxy", "--config", config], cwd=tmp_path)
    assert done.returncode == 78
    assert "is not a duration (try 120s)" in done.stderr


def test_the_settings_that_come_with_it_are_good() -> None:
    done = subprocess.run(
        [str(TWISTD), "-n", "--pidfile=", "llmproxy", "--config", "etc/apis.yaml", "--check"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_twistd_lists_both_plugins() -> None:
    done = subprocess.run([str(TWISTD), "--help"], capture_output=True, text=True, timeout=60, check=True)
    assert "llmproxy " in done.stdout and "llmproxy-simulator" in done.stdout


def test_first_start_makes_its_secrets_for_the_owner_alone(tmp_path: Path) -> None:
    port = free_port()
    config = tmp_path / "apis.yaml"
    config.write_text(
        "apis: {a: {base_url: 'http://127.0.0.1:9', allowed_endpoints: [/v1/x]}}\n"
        f"server: {{listen: ['tcp:{port}:interface=127.0.0.1']}}\n"
    )
    clean = {name: "" for name in os.environ if name.endswith(("MANAGEMENT_TOKEN", "ENCRYPTION_KEY"))}
    with Daemon(
        "llmproxy", "--config", str(config), port=port, log=tmp_path / "log", env=clean, cwd=tmp_path
    ) as daemon:
        with urllib.request.urlopen(f"{daemon.url}/ready", timeout=10) as answer:
            assert answer.status == 200
        for name in ("management-token", "encryption-key", "llmproxy.db"):
            path = tmp_path / "data" / name
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, name
        for name in ("management-token", "encryption-key"):
            secret = (tmp_path / "data" / name).read_text().strip()
            assert str(tmp_path / "data" / name) in daemon.output()
            assert secret not in daemon.output()
    assert daemon.stop() == 0


def test_another_encryption_key_is_a_clean_refusal(tmp_path: Path) -> None:
    with Stack(tmp_path) as stack:
        pass
    other = Daemon(
        *stack.daemon.args, port=stack.daemon.port, log=tmp_path / "other.log",
        env={"LLMPROXY_MANAGEMENT_TOKEN": MANAGEMENT, "LLMPROXY_ENCRYPTION_KEY": ENCRYPTION + " but another"},
    )  # fmt: skip
    with pytest.raises(AssertionError, match="ended with 1"), other:
        pass
    assert "Cannot start" in other.output() and "Traceback" not in other.output()


def test_a_plugin_that_nobody_provides_stops_the_start(tmp_path: Path) -> None:
    config = tmp_path / "apis.yaml"
    config.write_text(
        "apis: {a: {base_url: 'http://127.0.0.1:9', allowed_endpoints: [/v1/x]}}\n"
        "events: {sinks: [{type: carrier-pigeon}]}\n"
    )
    done = run_command([TWISTD, "-n", "--pidfile=", "llmproxy", "--config", config], cwd=tmp_path)
    assert done.returncode != 0 and "carrier-pigeon" in done.stderr and "file" in done.stderr


def test_the_pages_for_operators(stack: Stack) -> None:
    for path in ("/health", "/live", "/ready", "/healthz", "/livez", "/readyz"):
        with urllib.request.urlopen(stack.url + path, timeout=10) as answer:
            assert json.load(answer)["status"] == "ok"
    stack.ask("GET", "/v1/models")
    text = stack.ask("GET", "/metrics", token=MANAGEMENT).body.decode()
    assert re.search(r"^llmproxy_requests_total.* [1-9]", text, re.M)
    told = stack.ask("GET", "/metrics", headers={"Accept": "application/json"}, token=MANAGEMENT).json
    assert told["requests"] >= 1


def test_what_was_spent_is_not_for_everybody(stack: Stack, tmp_path: Path) -> None:
    """Metrics and the management API's description need the management token, a client's own is none."""
    for path in ("/metrics", "/metrics/prometheus", "/manage/openapi.json"):
        for token in (stack.token, "", "wrong"):
            reply = stack.ask("GET", path, token=token)
            assert reply.status == 401 and b"llmproxy_requests" not in reply.body, path
        assert stack.ask("GET", path, token=MANAGEMENT).status == 200
    port = free_port()
    shown = {
        "LLMPROXY_SERVER_PUBLIC_METRICS": "true",
        "LLMPROXY_SERVER_LISTEN": f"tcp:{port}:interface=127.0.0.1",
        "LLMPROXY_MANAGEMENT_TOKEN": MANAGEMENT,
        "LLMPROXY_ENCRYPTION_KEY": ENCRYPTION,
    }
    open_to_all = Daemon(*stack.daemon.args, port=port, log=tmp_path / "open.log", env=shown)
    with open_to_all, urllib.request.urlopen(open_to_all.url + "/metrics", timeout=10) as answer:
        assert b"llmproxy_requests_total" in answer.read()


def test_no_secret_is_in_any_file_but_the_database(stack: Stack) -> None:
    """Neither in the logs, nor as plain text in the database."""
    stack.ask("POST", "/v1/chat/completions", b"{}", {"User-Agent": f"leaky {stack.token}"})
    eventually(lambda: "leaky" in stack.daemon.output())
    for path in stack.home.iterdir():
        if path.suffix in (".log", ".jsonl", ".db") or ".db-" in path.name:
            data = path.read_bytes()
            if path.name == "simulator.log":
                continue
            for secret in (stack.token, MANAGEMENT, ENCRYPTION, *KEYS.values()):
                assert secret.encode() not in data, (path.name, secret)


def test_each_request_is_one_line_in_the_access_log(stack: Stack) -> None:
    reply = stack.ask("POST", "/anthropic/v1/nothing", b"{}")
    request_id = reply.header("X-Request-ID")
    line = eventually(lambda: [line for line in stack.daemon.output().splitlines() if f'"{request_id}"' in line])
    assert len(line) == 1
    told = json.loads(line[0])
    assert (told["status"], told["error"], told["outcome"]) == (403, "endpoint_not_allowed", "refused")


def test_curl_streams(stack: Stack) -> None:
    done = subprocess.run(
        ["curl", "-sSN", "--fail-with-body", "-D", "-", f"{stack.url}/v1/chat/completions",
         "-H", f"Authorization: Bearer {stack.token}", "-H", "Content-Type: application/json",
         "-d", '{"model":"gpt-4o","stream":true,"messages":[{"role":"user","content":"Hello"}]}'],
        capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    assert "text/event-stream" in done.stdout and done.stdout.rstrip().endswith("data: [DONE]")


def test_what_is_not_http_is_refused_counted_and_logged(stack: Stack) -> None:
    with socket.create_connection((HOST, stack.daemon.port), 10) as connection:
        connection.sendall(b"GET /v1/models HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n")
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 400 ") and b"Connection: close" in answer
    line = eventually(
        lambda: [x for x in stack.daemon.output().splitlines() if '"status":400' in x and '"refused"' in x]
    )
    assert json.loads(line[-1])["error"]


def test_management_and_metrics_on_listeners_of_their_own(tmp_path: Path) -> None:
    """They do not exist on the public one, and nothing else exists on theirs."""
    with Stack(tmp_path) as stack:
        pass
    admin, metrics = free_port(), free_port()
    moved = Daemon(
        *stack.daemon.args, "--admin-listen", f"tcp:{admin}:interface=127.0.0.1",
        "--metrics-listen", f"tcp:{metrics}:interface=127.0.0.1",
        port=metrics, log=tmp_path / "moved.log",
        env={"LLMPROXY_MANAGEMENT_TOKEN": MANAGEMENT, "LLMPROXY_ENCRYPTION_KEY": ENCRYPTION},
    )  # fmt: skip
    with moved:
        there = {
            (port, path): stack.ask("GET", path, token=MANAGEMENT if port == admin else "", port=port).status
            for port in (stack.daemon.port, admin, metrics)
            for path in ("/manage/projects", "/metrics", "/ready")
        }
    assert [place for place, status in there.items() if status == 200] == [
        (admin, "/manage/projects"),
        (metrics, "/metrics"),
        (metrics, "/ready"),
    ]
    assert set(there.values()) == {200, 404}


def test_stopping_cuts_what_is_still_busy_when_the_time_is_up(tmp_path: Path) -> None:
    """A stream that would go on for minutes does not keep the process; a second is what it was given."""
    with Stack(tmp_path) as stack:
        config = stack.home / "llmproxy.yaml"
        stack.daemon.stop()
        config.write_text(config.read_text().replace("server: {", "server: {drain_timeout: 1s, "))
        stack.daemon.start()
        with socket.create_connection((HOST, stack.daemon.port), 10) as connection:
            body = b'{"model":"gpt-4o","stream":true,"messages":[{"role":"user","content":"x"}]}'
            connection.sendall(
                f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {stack.token}\r\n"
                f"X-Sim-Events: 9000\r\nX-Sim-Delay: 0,0.05\r\nContent-Length: {len(body)}\r\n\r\n".encode()
                + body
            )
            assert connection.recv(65536)
            begun = time.monotonic()
            stack.daemon.stop(patience=9)
            assert 0.9 < time.monotonic() - begun < 8
        assert "Cut 1 connections" in stack.daemon.output()
        eventually(lambda: stack.last()["left_at"])
