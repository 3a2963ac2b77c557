"""What keeps the daemon from starting, and what must not."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.processes import HOST, Process, free_port, run_command, start_command

TWISTD = Path(sys.executable).with_name("twistd")
HERE = f"tcp:{{port}}:interface={HOST}"
FREE = f"tcp:{{free}}:interface={HOST}"
POSTGRES = "store: {url: 'postgresql+psycopg://u:hunter2@127.0.0.1:1/x'}"


def settings(home: Path, listen: str, api: str = "", further: str = "") -> Path:
    config = home / "apis.yaml"
    config.write_text(
        f"default_api: a\napis: {{a: {{base_url: 'http://127.0.0.1:1', allowed_endpoints: [/v1/models]{api}}}}}\n"
        f"server: {{listen: ['{listen}']}}\n{further}\n"
    )
    return config


def environment(**more: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("LLMPROXY_")} | more


def run(home: Path, *twistd: str, fresh: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
    """@param fresh: Whether it is to be a process of its own from the first instruction."""
    if not fresh:
        return run_command([TWISTD, *twistd, "llmproxy", "--config", "apis.yaml"], env=environment(**env), cwd=home)
    return subprocess.run(
        [str(TWISTD), *twistd, "llmproxy", "--config", "apis.yaml"],
        capture_output=True, text=True, timeout=60, cwd=home, env=environment(**env), check=False,
    )  # fmt: skip


def answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection((HOST, port), 1):
        return True
    return False


@contextmanager
def running(home: Path, port: int, *command: str, fresh: bool = True) -> Iterator[Process]:
    """A foreground process, for the time of the block, once its port is open."""
    if fresh:
        with (home / "log").open("wb") as log:
            process: Process = subprocess.Popen(
                [*command], cwd=home, env=environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
    else:
        process = start_command(command, home / "log", cwd=home, env=environment())
    try:
        end = time.monotonic() + 20
        while not answers(port) and process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        assert answers(port), (home / "log").read_text()
        yield process
    finally:
        process.terminate()
        process.wait(20)


# What is wrong: where it listens, further settings of the API, further settings, variables; and what is said of it.
FAILURES = {
    "port": (HERE, "", "", {}, "It cannot listen on tcp:{port}:interface=127.0.0.1: Address already in use."),
    "address": ("tcp:{free}:interface=203.0.113.9", "", "", {}, "Cannot assign requested address."),
    "directory": ("unix:/nonexistent/x.sock", "", "", {}, "there is no directory /nonexistent."),
    "no-certificate": ("ssl:{free}:privateKey=/none.pem:certKey=/none.pem", "", "", {}, "/none.pem: No such file"),
    "bad-certificate": (
        "ssl:{free}:privateKey=bad.pem:certKey=bad.pem",
        "",
        "",
        {},
        "its certificate or key cannot be",
    ),
    "tls-folder": ("tls:/nonexistent:{free}", "", "", {}, "there is no directory /nonexistent."),
    "tls-empty": ("tls:empty:{free}", "", "", {}, "there is no certificate in empty (NAME.pem)."),
    "tls-no-name": ("tls:nameless:{free}", "", "", {}, "nameless has no certificate for a DNS name together with its"),
    "endpoint": ("carrier:{free}", "", "", {}, "it is no endpoint that Twisted knows"),
    "ca-file": (FREE, ", ca_file: /none.pem", "", {}, "apis.a.ca_file: /none.pem: No such file or directory."),
    "bad-ca-file": (FREE, ", ca_file: bad.pem", "", {}, "apis.a.ca_file: bad.pem holds no certificate in PEM."),
    "state": (FREE, "", "state_dir: bad.pem/x", {}, "cannot be read or made: Not a directory."),
    "audit": (FREE, "", "audit: {file: empty}", {}, "audit.file: empty is a directory."),
    "events": (
        FREE,
        "",
        "events: {sinks: [{type: file, path: bad.pem/events.jsonl}]}",
        {},
        "bad.pem is no directory.",
    ),
    "store": (FREE, "", "store: {url: 'sqlite:///bad.pem/x.db'}", {}, "cannot be opened: Not a directory."),
    "no-server": (
        FREE,
        "",
        POSTGRES,
        {"ENCRYPTION_KEY": "an encryption key for tests, long enough"},
        "Connection refused",
    ),
    "no-driver": (
        FREE,
        "",
        POSTGRES,
        {"PYTHONPATH": "shim"},
        "store.url needs the module psycopg. Run: pip install 'llmproxy[postgres]'",
    ),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_is_one_sentence(name: str, tmp_path: Path) -> None:
    """And exit 1: no traceback, no secret."""
    listen, api, further, env, said = FAILURES[name]
    (tmp_path / "bad.pem").write_text("no certificate")
    (tmp_path / "empty").mkdir()
    (tmp_path / "nameless").mkdir()
    (tmp_path / "nameless" / "x.pem").write_text("no certificate")
    (tmp_path / "shim").mkdir()
    (tmp_path / "shim" / "psycopg.py").write_text("raise ImportError('not installed', name='psycopg')")
    with closing(socket.create_server((HOST, 0))) as busy:
        places = {"port": busy.getsockname()[1], "free": free_port()}
        settings(tmp_path, listen.format(**places), api, further)
        done = run(tmp_path, "-n", fresh=name == "port", **env)
    assert done.returncode == 1, done.stdout + done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("llmproxy cannot start: ")]
    assert said.format(**places) in line
    assert "Traceback" not in done.stdout + done.stderr and "hunter2" not in done.stdout + done.stderr


@pytest.mark.long("1 s: as in the foreground")
def test_a_failure_is_told_where_twistd_goes_into_the_background(tmp_path: Path) -> None:
    """By the command that was typed, with its exit status, and no process stays."""
    with closing(socket.create_server((HOST, 0))) as busy:
        settings(tmp_path, HERE.format(port=busy.getsockname()[1]))
        done = run(tmp_path)
    assert done.returncode == 1
    assert "llmproxy cannot start: It cannot listen on" in done.stderr and "Address already in use" in done.stderr
    assert not (tmp_path / "twistd.pid").exists()
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.long("2 s: as a failure of one process")
@pytest.mark.parametrize("mode", ["foreground", "background"])
def test_a_failure_of_workers_is_one_sentence(mode: str, tmp_path: Path) -> None:
    """It is their supervisor's. When the command has come back, nothing is left of it."""
    (tmp_path / "bad.pem").write_text("no certificate")
    config = settings(tmp_path, FREE.format(free=free_port()), further="state_dir: bad.pem/x")
    config.write_text(config.read_text().replace("server: {", "server: {workers: 2, "))
    done = run(tmp_path, *(["-n"] if mode == "foreground" else []))
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if "cannot" in line]
    assert line.startswith("llmproxy cannot start: The secret ") and line.endswith("Not a directory.")
    assert "Traceback" not in done.stdout + done.stderr
    assert not (tmp_path / "twistd.pid").exists()


@contextmanager
def background(home: Path, port: int, *, fresh: bool = False) -> Iterator[int]:
    """A daemon as twistd starts it without -n."""
    done = run(home, fresh=fresh)
    assert done.returncode == 0, done.stdout + done.stderr
    assert answers(port), "the command came back before anything listened"
    pid = int((home / "twistd.pid").read_text())
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGTERM)
        end = time.monotonic() + 20
        while (home / "twistd.pid").exists() and time.monotonic() < end:
            time.sleep(0.05)


@pytest.mark.long("2 s: a start in the background, as in the foreground")
def test_the_background(tmp_path: Path) -> None:
    """The command comes back when there is something to talk to; a second one says that it runs already."""
    port = free_port()
    settings(tmp_path, HERE.format(port=port))
    (tmp_path / "twistd.pid").write_text(str(os.getpid()))  # alive, and no daemon
    with background(tmp_path, port, fresh=True) as pid:  # so that its command line says what it is
        again = run(tmp_path)
        assert again.returncode == 1 and again.stdout == ""
        assert again.stderr.startswith(
            f"llmproxy cannot start: twistd.pid says that it runs already, as process {pid}."
        )
    assert not (tmp_path / "twistd.pid").exists()


def test_a_pid_file_that_was_left_behind(tmp_path: Path) -> None:
    """The README's command starts, whatever number is in it: in a container it is always that of the daemon itself."""
    port = free_port()
    settings(tmp_path, HERE.format(port=port))
    for number in (str(os.getpid()), "1", "999999999", "nonsense"):
        (tmp_path / "twistd.pid").write_text(number)
        with running(tmp_path, port, str(TWISTD), "-n", "llmproxy", "--config", "apis.yaml", fresh=False):
            pass
        assert (tmp_path / "twistd.pid").read_text() == number, "not ours to touch"


def test_a_pid_file_that_names_the_process_itself(tmp_path: Path) -> None:
    """As the first process of a container finds it; here one is wanted, so it is written anew."""
    port = free_port()
    settings(tmp_path, HERE.format(port=port))
    script = f"echo $$ > own.pid; exec {TWISTD} -n --pidfile=own.pid llmproxy --config apis.yaml"
    with running(tmp_path, port, "/bin/sh", "-c", script) as process:
        assert int((tmp_path / "own.pid").read_text()) == process.pid


def test_the_simulator_beside_a_stale_file(tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "twistd.pid").write_text(str(os.getpid()))
    with running(
        tmp_path,
        port,
        str(TWISTD),
        "-n",
        "llmproxy-simulator",
        "--listen",
        f"tcp:{port}:interface={HOST}",
        fresh=False,
    ):
        pass
