"""Errors that nobody has foreseen, in what the daemon does by itself; and disks that hang or are full."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import time
import urllib.error
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from tests.support.admin_visitor import Visitor
from tests.support.processes import HOST, RUN_FIRST, Daemon
from tests.support.stack import Stack, eventually

CHAT = b'{"model":"gpt-4o","messages":[{"role":"user","content":"x"}]}'
JSON = {"Content-Type": "application/json"}
UNREAD = (  # keeps the other end of the pipe open, and does not read it
    "import os, sys; read, write = os.pipe(); os.set_inheritable(read, True); os.dup2(write, 1); "
    "os.execv(sys.argv[1], sys.argv[1:])"
)
FAULTS = Path(__file__).parent.parent / "faults"


def ready(stack: Stack, port: int = 0) -> tuple[int, dict[str, Any]]:
    connection = HTTPConnection(HOST, port or stack.daemon.port, timeout=10)
    connection.request("GET", "/ready")
    answer = connection.getresponse()
    told = json.loads(answer.read())
    connection.close()
    return answer.status, told


def metric(stack: Stack, name: str) -> float:
    """A figure of the metrics page, by its name with labels."""
    answer = stack.ask("GET", "/metrics", token=stack.env["LLMPROXY_MANAGEMENT_TOKEN"])
    found = [line for line in answer.body.decode().splitlines() if line.startswith(name + " ")]
    return float(found[0].split()[-1]) if found else 0.0


def lines(stack: Stack) -> int:
    with sqlite3.connect(stack.home / "llmproxy.db") as store:
        return int(store.execute("SELECT count(*) FROM ledger").fetchone()[0])


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One whose faults can be switched on."""
    home = tmp_path_factory.mktemp("faults")
    with Stack(home, env={RUN_FIRST: str(FAULTS / "sitecustomize.py"), "FAULTS": str(home)}) as running:
        yield running


@pytest.fixture(scope="module")
def other(faulty: Stack) -> Iterator[Daemon]:
    with faulty.another("other") as running:
        yield running


class TestUnforeseenErrors:
    """The faults are switched on and off by files; the rest of the daemon is as it is."""

    def revoke(self, stack: Stack, other: Daemon, patience: float) -> None:
        made = stack.manage("POST", "/manage/tokens", {"project_id": stack.project, "name": "x"})
        assert stack.ask("GET", "/v1/models", token=made["token"]).status == 200
        connection = HTTPConnection(HOST, other.port, timeout=10)
        headers = {"Authorization": f"Bearer {stack.env['LLMPROXY_MANAGEMENT_TOKEN']}"}
        connection.request("DELETE", f"/manage/tokens/{made['id']}", headers=headers)
        assert connection.getresponse().status < 300
        connection.close()
        eventually(lambda: stack.ask("GET", "/v1/models", token=made["token"]).status == 401, patience)

    @pytest.mark.long("3 s: what a round that fails unforeseen does, as of other rounds")
    def test_the_revocation_poll(self, faulty: Stack, other: Daemon) -> None:
        """While it fails nothing that is remembered is used for long; it goes on, and works again by itself."""
        flag = faulty.home / "since"
        flag.touch()
        failures = 'llmproxy_background_failures_total{task="revocation"}'
        eventually(lambda: metric(faulty, failures) >= 2, 10)
        status, told = ready(faulty)
        assert (status, told["status"], told["checks"]["background"]) == (200, "degraded", "revocation failing")
        assert "ZeroDivisionError" in faulty.daemon.output()
        self.revoke(faulty, other, 7.0)
        flag.unlink()
        eventually(lambda: ready(faulty)[1]["checks"]["background"] == "ok", 15)
        assert ready(faulty)[1]["status"] == "ok"
        self.revoke(faulty, other, 2.0)

    def test_the_ledger(self, faulty: Stack) -> None:
        """No line is lost: they are entered once it works again."""
        flag, before = faulty.home / "next_batch", eventually(lambda: lines(faulty) + 1)
        flag.touch()
        for _ in range(5):
            assert faulty.ask("POST", "/v1/chat/completions", CHAT, JSON).status == 200
        eventually(lambda: metric(faulty, 'llmproxy_background_failures_total{task="ledger"}') >= 2, 10)
        assert "ledger failing" in ready(faulty)[1]["checks"]["background"]
        flag.unlink()
        eventually(lambda: lines(faulty) >= before + 4, 10)
        eventually(lambda: ready(faulty)[1]["checks"]["background"] == "ok", 15)

    def test_a_page_that_cannot_be_made(self, faulty: Stack) -> None:
        """Says so as a page, with what to look for in the log; the others are as they are."""
        visitor, flag = Visitor(faulty.daemon.port), faulty.home / "relative"
        visitor.sign_in()
        page = f"/admin/projects/{faulty.project}"
        assert visitor.get(page).status == 200
        flag.touch()
        response = visitor.get(page)
        flag.unlink()
        assert (response.status, response.header("Content-Type")) == (500, "text/html; charset=utf-8")
        said = response.body.decode()
        assert "That did not work" in said and "internal_error" in said and "ZeroDivisionError" not in said
        request_id = response.header("X-Request-ID") or "none"
        assert any(
            "injected into relative" in line and request_id in line for line in faulty.daemon.output().split("\n")
        )
        assert visitor.get(page).status == 200


class TestFilesThatHang:
    def test_a_sink_that_nobody_reads(self, tmp_path: Path) -> None:
        """A FIFO without a reader holds up neither the ledger nor the audit log, and not the end: what was given up
        is said."""
        os.mkfifo(tmp_path / "events.jsonl")
        with Stack(tmp_path) as stack:
            for _ in range(20):
                assert stack.ask("POST", "/v1/chat/completions", CHAT, JSON).status == 200
            eventually(lambda: lines(stack) >= 20)
            stack.manage("POST", "/manage/projects", {"name": "audited"})
            begun = time.monotonic()
            assert stack.daemon.stop(40) == 0
            assert time.monotonic() - begun < 12
            assert "Sink file-0 dropped 20 events" in stack.daemon.output()


class TestOutputThatHangs:
    @pytest.mark.long("3 s: a log that hangs, as an event sink that does")
    def test_a_log_that_nobody_reads(self, tmp_path: Path) -> None:
        """Standard output is a full pipe: requests go on, and so does the end."""
        stack = Stack(tmp_path)
        stack.daemon._through, stack.daemon._fresh = (sys.executable, "-c", UNREAD), True
        with stack:
            for _ in range(300):  # some 150 KB of lines; a pipe holds 64 KiB
                assert stack.ask("GET", "/v1/models").status == 200
            begun = time.monotonic()
            assert stack.daemon.stop(40) == 0
            assert time.monotonic() - begun < 12


class TestFullDisks:
    """C{/dev/full} is a disk on which nothing has room."""

    def test_audit_log(self, tmp_path: Path) -> None:
        """The change is answered with 503, requests go on, and readiness says what is full."""
        (tmp_path / "audit.jsonl").symlink_to("/dev/full")
        with pytest.raises(urllib.error.HTTPError) as caught, Stack(tmp_path) as stack:
            pytest.fail(f"a project could be made: {stack.project}")
        told = json.loads(caught.value.read())
        assert (caught.value.code, told["code"]) == (503, "audit_unavailable")
        log = (tmp_path / "llmproxy.log").read_text()
        assert "could not be appended to" in log
        assert "No space left on device" in log

    def test_events_and_log(self, tmp_path: Path) -> None:
        """Requests go on; readiness and metrics say what is full."""
        (tmp_path / "events.jsonl").symlink_to("/dev/full")
        (tmp_path / "llmproxy.log").symlink_to("/dev/full")
        with Stack(tmp_path) as stack:
            assert stack.ask("POST", "/v1/chat/completions", CHAT, JSON).status == 200
            eventually(lambda: ready(stack)[1]["checks"]["events"] == "file-0: disk_full")
            eventually(lambda: ready(stack)[1]["checks"]["log"] == "disk_full")
            status, told = ready(stack)
            assert (status, told["status"]) == (200, "degraded")
            assert metric(stack, "llmproxy_log_lines_lost_total") > 0
