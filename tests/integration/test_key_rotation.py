"""Another encryption key takes the place of the one that there is, while requests go on."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import HOST, run_command
from tests.support.stack import KEYS, MANAGEMENT, Stack, eventually
from tests.support.workers import WorkerStack, workers_of

CHAT = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "x"}]}).encode()
JSON = {"Content-Type": "application/json"}
OLD = "the key that there was, long enough"


def cli(stack: Stack, *arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if "ENCRYPTION" not in name}
    return run_command(
        ["llmproxy", *arguments, "--config", stack.home / "llmproxy.yaml"],
        env={**clean, **(env if env is not None else with_file(stack.home))},
    )


def with_file(home: Path) -> dict[str, str]:
    return {"LLMPROXY_ENCRYPTION_KEY": "", "ENCRYPTION_KEY_FILE": str(home / "key")}


def key_file(home: Path, text: str = OLD) -> Path:
    file = home / "key"
    file.write_text(text + "\n")
    file.chmod(0o600)
    return file


class Load:
    """Requests one after the other, on connections of their own, with one token."""

    def __init__(self, stack: Stack, threads: int = 3) -> None:
        self.stack, self.going, self.done = stack, True, 0
        self.failures: list[str] = []
        self.threads = [threading.Thread(target=self.run) for _ in range(threads)]

    def __enter__(self) -> Load:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.going = False
        for thread in self.threads:
            thread.join(60)

    def run(self) -> None:
        while self.going:
            connection = HTTPConnection(HOST, self.stack.daemon.port, timeout=60)
            try:
                for _ in range(20):
                    connection.request(
                        "POST", "/v1/chat/completions", CHAT, {**JSON, "Authorization": f"Bearer {self.stack.token}"}
                    )
                    answer = connection.getresponse()
                    body = answer.read()
                    if answer.status != 200:
                        self.failures.append(f"{answer.status} {body[:200]!r}")
                    self.done += 1
            except (OSError, HTTPException) as e:
                self.failures.append(repr(e))
            finally:
                connection.close()


def sealed(stack: Stack) -> list[tuple[Any, ...]]:
    with sqlite3.connect(stack.home / "llmproxy.db", timeout=20) as database:
        return [
            *database.execute("select name, sealed from canaries order by name"),
            *database.execute("select project_id, api, sealed from provider_keys order by 1, 2"),
            *database.execute("select position, reference, sealed from further_provider_keys order by 1"),
        ]


@pytest.mark.long("4 s: no request fails while a key is rotated")
def test_under_load(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No request fails; all is sealed anew; tokens, management keys and the chain of the audit log stay good."""
    file = key_file(tmp_path)
    with Stack(tmp_path, env=with_file(tmp_path), further="") as stack:
        manager = rotated_under_load(stack, file, capsys)
    assert_only_this_key_fits(stack, manager)


@pytest.mark.long("4 s: several workers under load, as one process")
@pytest.mark.long("5 s: no request fails while a key is rotated under two workers")
def test_several_workers_under_load(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each worker takes the new key, whichever of them is asked, and no request fails."""
    file = key_file(tmp_path)
    with WorkerStack(tmp_path, 2, env=with_file(tmp_path)) as stack:
        rotated_under_load(stack, file, capsys)
        assert len(workers_of(stack.daemon.pid)) >= 2
        for _ in range(12):  # on connections of their own, which both take some of
            token = stack.new_token()
            assert stack.ask("POST", "/v1/chat/completions", CHAT, JSON, token=token).status == 200


def rotated_under_load(stack: Stack, file: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Rotate the key while requests go on and keys are changed; the secret of a management key from before."""
    manager = stack.manage("POST", "/manage/keys", {"name": "ops", "role": "admin"})["key"]
    other = stack.manage("POST", "/manage/projects", {"name": "Idle", "api_keys": {"openai": "sk-sim-openai"}})
    keys = [KEYS["openai"], "env:OPENAI_API_KEY", "sk-sim-third"]
    stack.manage("PATCH", f"/manage/projects/{stack.project}", {"api_keys": {"openai": keys}})
    before = sealed(stack)
    assert [row[:2] for row in before[-2:]] == [(1, "env:OPENAI_API_KEY"), (2, None)]
    with Load(stack) as load:
        eventually(lambda: load.done > 50, 30)
        changing = threading.Thread(target=change, args=(stack, other["id"], load))
        changing.start()
        at_start = load.done
        rotated = cli(stack, "rotate-key")
        at_end = load.done
        eventually(lambda: load.done > at_end + 50, 30)
    changing.join(30)
    assert rotated.returncode == 0, rotated.stderr
    with capsys.disabled():
        print(f"\nrotate-key: {load.done} requests ({at_end - at_start} meanwhile), {len(load.failures)} failed")
    assert load.done > 100 and at_end > at_start
    assert load.failures == []
    assert not {row[-1] for row in before} & {row[-1] for row in sealed(stack)}, "all is sealed anew"
    (key,) = file.read_text().split("\n")[:-1]
    assert key != OLD and (file.stat().st_mode & 0o777) == 0o600
    assert stack.ask("GET", "/manage/projects", token=manager).status == 200
    assert stack.ask("GET", "/manage/projects", token=MANAGEMENT).status == 200
    token = stack.manage("POST", "/manage/tokens", {"project_id": other["id"], "name": "late"})["token"]
    assert stack.ask("POST", "/v1/chat/completions", CHAT, JSON, token=token).status == 200
    return str(manager)


def change(stack: Stack, project: str, load: Load) -> None:
    """Keys are stored and read while all is sealed anew."""
    while load.going:
        stack.manage("PATCH", f"/manage/projects/{project}", {"api_keys": {"openai": "sk-sim-openai"}})
        time.sleep(0.05)


def assert_only_this_key_fits(stack: Stack, manager: str) -> None:
    """The next start finds everything with the new key alone, and refuses the old one; the audit log is verified."""
    with stack.simulator, stack.daemon:
        assert stack.ask("POST", "/v1/chat/completions", CHAT, JSON).status == 200
        assert stack.ask("GET", "/manage/projects", token=manager).status == 200
        verified = cli(stack, "audit", "verify")
        assert verified.returncode == 0, verified.stdout + verified.stderr
        assert verified.stdout.count("each as it was written") == 2
    wrong = cli(stack, "rotate-key", env={"LLMPROXY_ENCRYPTION_KEY": f"a new one\n{OLD}"})
    assert wrong.returncode == 78


def test_in_the_environment(tmp_path: Path) -> None:
    """Two keys there: both are good, the first seals, and nothing else is needed afterwards."""
    with Stack(tmp_path, env={"LLMPROXY_ENCRYPTION_KEY": OLD}) as stack:
        alone = cli(stack, "rotate-key", env={"LLMPROXY_ENCRYPTION_KEY": OLD})
        assert alone.returncode == 78
        assert "Put a new one on a line before it" in alone.stderr
    both = {"LLMPROXY_ENCRYPTION_KEY": f"another key, long enough\n{OLD}"}
    new = {"LLMPROXY_ENCRYPTION_KEY": "another key, long enough"}
    with stack.simulator:
        with started(stack, both) as port:
            assert stack.ask("POST", "/v1/chat/completions", CHAT, JSON, port=port).status == 200
            rotated = cli(stack, "rotate-key", env=both)
            assert rotated.returncode == 0, rotated.stderr
            assert stack.ask("POST", "/v1/chat/completions", CHAT, JSON, port=port).status == 200
        with started(stack, new) as port:
            assert stack.ask("POST", "/v1/chat/completions", CHAT, JSON, port=port).status == 200
            verified = cli(stack, "audit", "verify", env=new)
            assert verified.returncode == 0, verified.stdout + verified.stderr


@contextmanager
def started(stack: Stack, env: dict[str, str]) -> Iterator[int]:
    """A further daemon with these variables."""
    stack.env.update(env)
    daemon = stack.another("another")
    with daemon:
        yield daemon.port


def test_no_database(tmp_path: Path) -> None:
    """None is made, and the key stays."""
    file = key_file(tmp_path)
    refused = cli(Stack(tmp_path, env=with_file(tmp_path)), "rotate-key")
    assert (refused.returncode, file.read_text()) == (78, OLD + "\n")
    assert not (tmp_path / "llmproxy.db").exists()


@pytest.mark.long("1 s: a start that is refused, as a doctor says it too")
def test_a_lost_key(tmp_path: Path) -> None:
    """Is not replaced by a new one that opens nothing: the start is refused, and nothing is written before."""
    file = key_file(tmp_path)
    env = {"LLMPROXY_ENCRYPTION_KEY": "", "LLMPROXY_STATE_DIR": str(tmp_path / "state")}
    (tmp_path / "state").mkdir(mode=0o700)
    file.rename(tmp_path / "state" / "encryption-key")
    with Stack(tmp_path, env=env) as stack:
        pass
    (tmp_path / "state" / "encryption-key").unlink()
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".log"}
    failed = subprocess.run(
        [str(Path(sys.executable).with_name("llmproxy")), "run", "--config", str(tmp_path / "llmproxy.yaml")],
        env={**os.environ, **stack.env}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert failed.returncode != 0
    assert "no new one was made" in failed.stdout + failed.stderr
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".log"}
    assert after == files
