"""What the page about operation says to do, done."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from llmproxy.config.model import Server
from tests.support.processes import HOST, free_port
from tests.support.rolled import ended_afterwards, successors
from tests.support.stack import KEYS, SETTINGS, Stack, eventually

PAGE = (Path(__file__).parents[2] / "docs" / "operation.md").read_text("utf-8")
CHAT = b'{"model":"gpt-4o","messages":[{"role":"user","content":"x"}]}'


class FilesOfItsOwn(Stack):
    """One whose secrets are files that the first start has made."""

    settings = SETTINGS.replace("store:", "ledger: {{interval: 50ms}}\nstore:")

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.env.pop("LLMPROXY_ENCRYPTION_KEY")
        self.daemon = self.another()

    def chat(self) -> int:
        return self.ask("POST", "/v1/chat/completions", CHAT, {"Content-Type": "application/json"}).status

    def lines(self) -> int:
        return sum(row["requests"] for row in self.manage("GET", "/manage/usage")["data"])


def test_a_backup_is_restored(tmp_path: Path) -> None:
    """Database and key, copied while the daemon runs, make a daemon that knows tokens, keys and ledger."""
    copy = tmp_path / "copy"
    copy.mkdir()
    with FilesOfItsOwn(tmp_path) as stack:
        assert stack.chat() == 200
        eventually(lambda: stack.lines() == 1)
        with sqlite3.connect(tmp_path / "llmproxy.db") as live, sqlite3.connect(copy / "llmproxy.db") as backup:
            live.backup(backup)
        shutil.copy2(tmp_path / "state" / "encryption-key", copy)
        later = stack.new_token()
        assert stack.ask("GET", "/v1/models", token=later).status == 200
        stack.daemon.stop()
        for path in tmp_path.glob("llmproxy.db*"):
            path.unlink()
        (tmp_path / "state" / "encryption-key").unlink()
        shutil.copy2(copy / "llmproxy.db", tmp_path)
        shutil.copy2(copy / "encryption-key", tmp_path / "state")
        with stack.another("restored") as stack.daemon:
            assert stack.chat() == 200
            assert stack.ask("GET", "/v1/models", token=later).status == 401
            eventually(lambda: stack.lines() >= 2)
            assert sorted(stack.manage("GET", f"/manage/projects/{stack.project}")["api_keys"]) == sorted(KEYS)


@pytest.mark.parametrize("text", re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
def test_settings(text: str) -> None:
    """The examples are settings that the daemon takes."""
    assert Server.model_validate(yaml.safe_load(text)["server"])


# Commands of the page whose steps are run by other tests, or (those of Docker and systemd) what they would do.
RUN_ELSEWHERE = {
    "python3 -m venv /opt/llmproxy": "test_containers.py::test_it_serves_and_drains",
    "/opt/llmproxy/bin/pip install '.[speed]'": "test_containers.py::test_it_serves_and_drains",
    "/opt/llmproxy/bin/twistd -n llmproxy --config /etc/llmproxy/apis.yaml": "test_systemd.py::test_the_unit",
    "docker build ": "test_containers.py::test_it_serves_and_drains",
    "docker run ": "test_containers.py::test_it_serves_and_drains",
    "export POSTGRES_PASSWORD=": "test_containers.py::test_its_settings",
    "docker compose -f deploy/docker/compose.yaml up ": "test_containers.py::test_what_it_names_is_there",
    "docker compose -f deploy/docker/compose.yaml kill ": "test_containers.py::test_it_starts_again",
    "cp deploy/systemd/llmproxy.service ": "test_systemd.py::test_the_unit",
    "systemctl daemon-reload": "test_systemd.py::test_the_unit",
    "systemctl enable --now llmproxy": "test_systemd.py::test_ready_alive_and_stopping",
    "systemctl reload llmproxy": "test_systemd.py::test_the_unit",
    "llmproxy import move.tgz --store postgresql": "test_backup.py::test_served_from_the_new_store",
}


def commands() -> list[str]:
    """All that stands in the page's blocks of commands, without the comments."""
    lines = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
    return [command for line in lines if (command := re.sub(r"\s+# .*", "", line).strip())]


def ours() -> list[str]:
    return [each for each in commands() if not each.startswith(tuple(RUN_ELSEWHERE))]


@pytest.mark.parametrize("command", RUN_ELSEWHERE)
def test_commands_that_are_run_elsewhere(command: str) -> None:
    """They stand in the page, and the test that runs them is there."""
    assert [each for each in commands() if each.startswith(command)]
    file, name = RUN_ELSEWHERE[command].split("::")
    assert f"def {name}(" in (Path(__file__).parent / file).read_text()


def signals() -> list[str]:
    return [each for each in ours() if each.startswith("kill ")]


class TypedByHand:
    """A folder in which the commands are typed, with a daemon in the background: it has C{twistd.pid} and C{data}."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port = free_port()
        (home / "etc").mkdir()
        (home / "safe").mkdir()
        (home / "etc" / "apis.yaml").write_text(
            f"apis: {{a: {{base_url: 'http://{HOST}:9', allowed_endpoints: [/v1/x]}}}}\n"
            f"server: {{listen: ['tcp:{self.port}:interface={HOST}']}}\n"
        )

    def type(self, command: str) -> str:
        """What it prints; it must succeed."""
        own = {name: value for name, value in os.environ.items() if not name.startswith(("LLMPROXY_", "ENCRYPTION_"))}
        done = subprocess.run(
            ["bash", "-c", command], cwd=self.home, capture_output=True, text=True, timeout=120, check=False,
            env={**own, "PATH": f"{Path(sys.executable).parent}:{own['PATH']}", "LLMPROXY_URL": f"http://{HOST}:{self.port}"},
        )  # fmt: skip
        assert done.returncode == 0, command + "\n" + done.stdout + done.stderr
        return done.stdout

    def log(self) -> str:
        path = self.home / "twistd.log"
        return path.read_text() if path.exists() else ""

    def pid(self) -> int:
        return int((self.home / "twistd.pid").read_text())

    def end(self) -> None:
        """Told to, it ends, and its pid file goes with it."""
        if (self.home / "twistd.pid").exists():
            self.type('kill "$(cat twistd.pid)"')
            eventually(lambda: not (self.home / "twistd.pid").exists())


@pytest.mark.long("3 s: the commands of the documentation that send signals")
def test_signals(tmp_path: Path) -> None:
    """Those of the page, to a daemon that was started by hand, do what stands there."""
    by_hand = TypedByHand(tmp_path)
    by_hand.type("llmproxy check-config etc/apis.yaml && twistd llmproxy")
    with ended_afterwards(by_hand.log):
        try:
            assert by_hand.type("llmproxy health") == "ok\n"
            hang_up, roll = signals()
            first = by_hand.pid()
            by_hand.type(hang_up)
            eventually(lambda: by_hand.log().count("Reloaded the settings") == 1)
            by_hand.type(roll)
            eventually(lambda: successors(by_hand.log()) and by_hand.pid() != first)
        finally:
            by_hand.end()


@pytest.mark.long("3 s: the commands of the documentation that copy a store")
def test_copies(tmp_path: Path) -> None:
    """Backup and export while the daemon runs; what they make is for its owner alone."""
    by_hand = TypedByHand(tmp_path)
    by_hand.type("twistd llmproxy")
    try:
        by_hand.type(" && ".join(each for each in ours() if each not in signals()))
    finally:
        by_hand.end()
    for name in ("backup.tgz", "move.tgz", "safe/encryption-key", "safe/management-token"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600, name


def test_which_commands() -> None:
    """Those that are typed here."""
    assert [each.split()[0:2] for each in ours()] == [
        ["kill", "-HUP"],
        ["kill", "-USR2"],
        ["llmproxy", "backup"],
        ["cp", "-p"],
        ["llmproxy", "export"],
    ]
