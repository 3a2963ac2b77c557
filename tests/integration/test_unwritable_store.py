"""A store that takes no writes: what is revoked is refused all the same, and everybody is told what is wrong."""

from __future__ import annotations

import json
import sqlite3
import time
import urllib.error
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.support.small_disk import small_disk
from tests.support.stack import Stack, eventually


@contextmanager
def locked(stack: Stack) -> Iterator[None]:
    """Another process is writing, and does not end."""
    with closing(sqlite3.connect(stack.home / "llmproxy.db", isolation_level=None, timeout=30)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def refusal(stack: Stack, method: str, path: str, body: object = None) -> tuple[int, dict[str, Any]]:
    try:
        stack.manage(method, path, body)
    except urllib.error.HTTPError as e:
        return e.code, json.loads(e.read())["error"]
    raise AssertionError("it was done")


def readiness(stack: Stack) -> tuple[int, dict[str, str]]:
    reply = stack.ask("GET", "/ready")
    return reply.status, reply.json["checks"]


def status(stack: Stack, token: str) -> int:
    return stack.ask("GET", "/v1/models", token=token).status


def test_revoking_while_the_store_is_locked(tmp_path: Path) -> None:
    """In force here at once, while the call still waits; said to be unstored; stored as soon as that can be."""
    with Stack(tmp_path) as stack:
        made = stack.manage("POST", "/manage/tokens", {"project_id": stack.project})
        other = stack.manage("POST", "/manage/projects", {"name": "Other", "api_keys": {"openai": "sk-sim-openai"}})
        others, third = (stack.new_token(project_id=other["id"]) for _ in range(2))
        assert [status(stack, token) for token in (stack.token, made["token"], others)] == [200, 200, 200]
        with locked(stack):
            begun = time.monotonic()
            code, error = refusal(stack, "DELETE", f"/manage/tokens/{made['id']}")
            assert (code, error["code"]) == (503, "revocation_not_stored")
            assert "In force here, not stored" in error["message"] and "locked" in error["message"]
            assert time.monotonic() - begun < 9
            assert status(stack, made["token"]) == 401
            code, error = refusal(stack, "PATCH", f"/manage/projects/{other['id']}", {"active": False})
            assert (code, error["code"]) == (503, "revocation_not_stored")
            assert (status(stack, others), status(stack, third)) == (403, 403)
            assert status(stack, stack.token) == 200
            code, checks = readiness(stack)
            assert (code, checks["store"]) == (503, "locked")
            assert checks["revocations"] == "2 in force here, not stored"
            code, error = refusal(stack, "POST", "/manage/projects", {"name": "New"})
            assert (code, error["message"]) == (503, "The change could not be stored. The store: locked. Try again.")
        eventually(lambda: readiness(stack)[0] == 200, 15)
        assert stack.manage("GET", f"/manage/tokens/{made['id']}")["active"] is False
        assert stack.manage("GET", f"/manage/projects/{other['id']}")["active"] is False
        assert (status(stack, made["token"]), status(stack, others), status(stack, stack.token)) == (401, 403, 200)
        stack.manage("PATCH", f"/manage/projects/{other['id']}", {"active": True})
        assert status(stack, others) == 200
        assert "is in force here, and could not be stored: locked" in stack.daemon.output()
        assert "Traceback" not in stack.daemon.output()


def test_a_process_that_is_killed_forgets_no_revocation(tmp_path: Path) -> None:
    """What it could not store, the next start on its state directory does, before anything listens."""
    with Stack(tmp_path) as stack:
        made = stack.manage("POST", "/manage/tokens", {"project_id": stack.project})
        assert (status(stack, made["token"]), status(stack, stack.token)) == (200, 200)
        with locked(stack):
            assert refusal(stack, "DELETE", f"/manage/tokens/{made['id']}")[0] == 503
            (left,) = (tmp_path / "state").glob("revocations-*.json")
            assert left.stat().st_mode & 0o777 == 0o600
            stack.daemon.kill()
        stack.daemon.start()
        assert (status(stack, made["token"]), status(stack, stack.token)) == (401, 200)
        assert stack.manage("GET", f"/manage/tokens/{made['id']}")["active"] is False
        assert list((tmp_path / "state").glob("revocations-*")) == []
        assert "1 revocations were left unwritten" in stack.daemon.output()


def test_revoking_on_a_full_disk(tmp_path: Path) -> None:
    """The same where the disk of the database is full; once there is room it is stored, also for the next start."""
    disk = tmp_path / "disk"
    with small_disk(disk, "8m"):
        env = {"LLMPROXY_STORE_URL": f"sqlite:///{disk}/llmproxy.db"}
        with Stack(tmp_path, env=env) as stack:
            made = stack.manage("POST", "/manage/tokens", {"project_id": stack.project})
            assert status(stack, made["token"]) == 200
            filler = disk / "filler"
            with filler.open("wb", buffering=0) as file, suppress(OSError):
                while True:
                    file.write(bytes(4096))
            # What is free within the database's own files is used up first.
            eventually(lambda: readiness(stack)[0] == 503 or fill(stack), 30)
            assert readiness(stack)[1]["store"] == "disk_full"
            code, error = refusal(stack, "DELETE", f"/manage/tokens/{made['id']}")
            assert (code, error["code"]) == (503, "revocation_not_stored") and "disk full" in error["message"]
            assert (status(stack, made["token"]), status(stack, stack.token)) == (401, 200)
            filler.unlink()
            eventually(lambda: readiness(stack)[0] == 200, 15)
            assert stack.manage("GET", f"/manage/tokens/{made['id']}")["active"] is False
            stack.daemon.stop()
            stack.daemon.start()
            assert (status(stack, made["token"]), status(stack, stack.token)) == (401, 200)


def fill(stack: Stack) -> bool:
    """One more project, as long as there is room; never true."""
    try:
        stack.manage("POST", "/manage/projects", {"name": "x" * 200, "api_keys": {"openai": "k" * 4000}})
    except urllib.error.HTTPError as e:
        assert e.code == 503
    return False
