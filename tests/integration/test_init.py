"""A first set-up, by questions and by options, and the daemon that then runs."""

from __future__ import annotations

import os
import pty
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llmproxy.cli.init import example_apis, example_settings, settings_text
from llmproxy.config.load import parse
from tests.integration.test_cli_commands import llmproxy
from tests.support.processes import Daemon, free_port
from tests.support.stack import eventually

ROOT = Path(__file__).parents[2]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_example() -> None:
    """The package carries the example settings; with other answers in them they are still right."""
    assert example_settings() == (ROOT / "etc" / "apis.yaml").read_text("utf-8")
    for api in example_apis():
        settings = parse(settings_text(api, "0.0.0.0:9000", "/var/lib/llmproxy"), "x.yaml", {})
        assert (settings.default_api, settings.state_dir) == (api, "/var/lib/llmproxy")
        assert settings.store.url == "sqlite:////var/lib/llmproxy/llmproxy.db"
        assert list(settings.server.listen) == ["tcp:9000:interface=0.0.0.0"]


@pytest.mark.long("1 s: by options what others answer")
def test_by_options(tmp_path: Path) -> None:
    """Nothing is asked; what it makes works, and nothing of it is replaced the second time."""
    port = free_port()
    arguments = (
        *("init", "--yes", "--config", "etc/apis.yaml", "--listen", f"127.0.0.1:{port}", "--project", "Mine"),
        *("--api-key", "env:SOME_KEY", "--token-file", "token"),
    )
    done = llmproxy(*arguments, cwd=tmp_path, env={"SOME_KEY": "sk-of-the-provider"})
    assert done.returncode == 0, done.stderr
    token, state = tmp_path / "token", tmp_path / "data"
    assert done.stdout == ""
    assert token.read_text().startswith("sk-lp-")
    assert [mode(each) for each in (token, state / "encryption-key", state / "management-token")] == [0o600] * 3
    assert mode(state) == 0o700
    assert "sk-of-the-provider" not in (tmp_path / "etc" / "apis.yaml").read_text() + done.stderr
    with Daemon("llmproxy", "--config", "etc/apis.yaml", port=port, log=tmp_path / "log", cwd=tmp_path):
        listed = llmproxy("--url", f"http://127.0.0.1:{port}", "project", "list", cwd=tmp_path)
        assert "Mine" in listed.stdout
        assert "openai" in listed.stdout
    again = llmproxy(*arguments, cwd=tmp_path, env={"SOME_KEY": "sk-of-the-provider"})
    assert again.returncode == 78
    assert "is there already" in again.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--api", "nobody"), "is none of"),
        (("--listen", "8080"), "HOST:PORT"),
        (("--api-key", "sk-the-key-itself"), "never the key itself"),
    ],
)
def test_faults(tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    """What is wrong is said before anything is written."""
    done = llmproxy("init", "--yes", *options, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_run_without_settings(tmp_path: Path) -> None:
    """Where nobody can be asked, it says what to do, and ends with 1."""
    done = llmproxy("run", cwd=tmp_path)
    assert done.returncode == 1
    assert "llmproxy init --config etc/apis.yaml" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long("3 s: the daemon offers to write its settings, as init writes them")
def test_run_on_a_terminal(tmp_path: Path) -> None:
    """It offers to write settings, asks what it must know, and then runs."""
    port = free_port()
    outer, inner = pty.openpty()
    command = [sys.executable, "-c", "from llmproxy.cli import main; main(prog_name='llmproxy')", "run"]
    env = {name: value for name, value in os.environ.items() if "LLMPROXY" not in name}
    process = subprocess.Popen(command, cwd=tmp_path, env=env, stdin=inner, stdout=inner, stderr=inner)
    os.close(inner)
    said = ""

    def expect(text: str, answer: str) -> None:
        nonlocal said
        end = time.monotonic() + 120
        while text not in said:
            assert time.monotonic() < end, said
            said += os.read(outer, 4096).decode("utf-8", "replace")
        said = said.partition(text)[2]
        os.write(outer, answer.encode() + b"\n")

    try:
        expect("Write one now?", "y")
        expect("Which provider", "anthropic")
        expect("Where to listen", f"127.0.0.1:{port}")
        expect("Where to keep", "")
        expect("first project", "Terminal")
        expect("first token", "")
        expect("Store a provider key for anthropic now?", "y")
        expect("(an empty line: later)", "")
        expect("sk-lp-", "")
        ask = ("--url", f"http://127.0.0.1:{port}", "project", "list")
        eventually(lambda: "Terminal" in llmproxy(*ask, cwd=tmp_path).stdout, 60)
    finally:
        process.terminate()
        process.wait(60)
        os.close(outer)
