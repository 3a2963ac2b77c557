"""The audit log of real daemons: nothing is lost over kills, and whatever is done to it is found."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import run_command
from tests.support.stack import ENCRYPTION, MANAGEMENT, Stack, eventually

CREATIONS = 12
LLMPROXY = str(Path(sys.executable).with_name("llmproxy"))


def verify(home: Path, *arguments: str) -> tuple[int, str]:
    done = run_command(
        ["llmproxy", "audit", "verify", "--config", home / "llmproxy.yaml", *arguments],
        env={**os.environ, "LLMPROXY_ENCRYPTION_KEY": ENCRYPTION},
    )
    return done.returncode, done.stdout + done.stderr


def entries(home: Path) -> list[dict[str, Any]]:
    lines = (home / "audit.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines if line.endswith("}")]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The home of a daemon that has ended, whose log has some entries of two processes and a restart."""
    home = tmp_path_factory.mktemp("audit")
    with Stack(home) as stack, stack.another("second") as second:
        for number in range(3):
            stack.manage("POST", "/manage/projects", {"name": f"Project {number}"})
            assert (
                stack.ask("POST", "/manage/projects", b'{"name": "other"}', token=MANAGEMENT, port=second.port).status
                == 201
            )
        listed = stack.manage("GET", "/manage/audit?action=project.create&outcome=success&limit=2")
        assert [each["details"]["name"] for each in listed["data"]] == ["other", "Project 2"]
        further = stack.manage("GET", f"/manage/audit?action=project.create&limit=2&cursor={listed['next_cursor']}")
        assert further["data"][0]["seq"] < listed["data"][-1]["seq"]
        found = stack.manage("GET", "/manage/audit?search=PROJECT%201&outcome=success")
        assert found["total"] == 1
        assert stack.ask("GET", "/manage/audit?since=yesterday", token=MANAGEMENT).status == 422
    yield home


@pytest.fixture
def home(written: Path) -> Iterator[Path]:
    """That, as it was."""
    kept = {file: file.read_bytes() for file in written.iterdir() if file.name.startswith(("audit", "llmproxy.db"))}
    yield written
    for file, content in kept.items():
        file.write_bytes(content)


def test_whole(home: Path) -> None:
    """As it was written, in the file and in the store; of each change what was intended and what came of it."""
    code, said = verify(home)
    assert (code, said.count("each as it was written")) == (0, 2), said
    changes = [entry["outcome"] for entry in entries(home) if entry["action"] == "project.create"]
    assert (changes.count("intent"), changes.count("success")) == (7, 7)


def test_edited_file(home: Path) -> None:
    log = home / "audit.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join(lines).replace("Project 1", "Project 9"))
    code, said = verify(home)
    assert code == 1 and "was altered" in said and "line" in said, said


def test_swapped_lines(home: Path) -> None:
    log = home / "audit.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    lines[4], lines[5] = lines[5], lines[4]
    log.write_text("".join(lines))
    code, said = verify(home)
    assert code == 1 and "line 5, entry 6, is out of order: entry 5 should stand here" in said, said


def test_cut_off_file(home: Path) -> None:
    log = home / "audit.jsonl"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:-1]))
    code, said = verify(home)
    assert code == 1 and "missing at the end" in said, said


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("DELETE FROM audit_log WHERE seq = 5", "entry 5 is missing before row 6, entry 6"),
        ("DELETE FROM audit_log WHERE seq = 1", "entry 1 is missing before row 2, entry 2"),
        ("DELETE FROM audit_log WHERE seq > 6", "missing at the end"),
        ("UPDATE audit_log SET line = replace(line, 'Project 1', 'Project 9')", "was altered"),
        ("UPDATE audit_log SET actor = 'nobody' WHERE seq = 3", "row 3 was altered: its columns"),
        (
            "UPDATE audit_log SET seq = CASE seq WHEN 4 THEN -5 WHEN 5 THEN -4 END WHERE seq IN (4, 5)",
            "row 4, entry 5, is out",
        ),
    ],
)
def test_changed_rows(home: Path, statement: str, problem: str) -> None:
    """Whoever can write to the database cannot do it unseen."""
    with closing(sqlite3.connect(home / "llmproxy.db")) as connection, connection:
        connection.execute(statement)
        connection.execute("UPDATE audit_log SET seq = -seq WHERE seq < 0")
    code, said = verify(home)
    assert code == 1 and problem in said, said


def test_another_key(home: Path) -> None:
    """Without the key nobody can tell, nor forge; that is said, and not that something was altered."""
    done = run_command(
        [LLMPROXY, "audit", "verify", "--config", str(home / "llmproxy.yaml")],
        env={**os.environ, "LLMPROXY_ENCRYPTION_KEY": "another key"},
    )
    assert (done.returncode, done.stdout) == (78, "")
    assert "With this encryption key the chain cannot be checked" in done.stderr


def test_a_file_that_is_not_there(home: Path) -> None:
    """A log that was misspelt is not whole."""
    code, said = verify(home, "--file", str(home / "audit.jsonl"), "--file", str(home / "nope"))
    assert code == 2 and "nope' does not exist" in said, said


def test_killed(tmp_path: Path) -> None:
    """Whatever the store has created, the log knows of, however often the process is killed; the chain goes on."""
    with Stack(tmp_path) as stack:
        for kill in range(3):
            failed = threading.Event()

            def create(turn: int = kill, failed: threading.Event = failed) -> None:
                with suppress(OSError, HTTPException):
                    for number in range(200):
                        body = json.dumps({"name": f"kill {turn} {number}"}).encode()
                        stack.ask("POST", "/manage/projects", body, token=MANAGEMENT)
                failed.set()

            thread = threading.Thread(target=create)
            thread.start()
            wanted = f"kill {kill} {CREATIONS}"
            eventually(lambda wanted=wanted: wanted in (tmp_path / "audit.jsonl").read_text(errors="replace"), 60)
            stack.daemon.kill()
            thread.join(60)
            assert failed.is_set()
            stack.daemon.start()
        projects = len(list_all(stack, "/manage/projects"))
    acts = [entry["outcome"] for entry in entries(tmp_path) if entry["action"] == "project.create"]
    assert projects > 3 * CREATIONS
    assert acts.count("intent") >= projects
    assert acts.count("success") >= projects - 3
    code, said = verify(tmp_path)
    assert code == 0, said


def list_all(stack: Stack, path: str) -> list[dict[str, Any]]:
    found, cursor = [], ""
    while True:
        page = stack.manage("GET", f"{path}?limit=1000" + (f"&cursor={cursor}" if cursor else ""))
        found += page["data"]
        cursor = page["next_cursor"]
        if not cursor:
            return found


def test_settings(tmp_path: Path) -> None:
    """Without audit.store there is nothing to ask for; with fsync never the file is written all the same."""
    with Stack(tmp_path, env={"LLMPROXY_AUDIT_FSYNC": "never", "LLMPROXY_AUDIT_STORE": "false"}) as stack:
        assert entries(tmp_path)
        assert stack.ask("GET", "/manage/audit", token=MANAGEMENT).status == 404
