"""What systemd sees of the daemon, with a socket in the place of systemd's own."""

from __future__ import annotations

import configparser
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from llmproxy.config.model import Server
from tests.support.processes import HOST, free_port
from tests.support.stack import eventually

TWISTD = Path(sys.executable).with_name("twistd")
UNIT = Path(__file__).parents[2] / "deploy" / "systemd" / "llmproxy.service"


def settings(home: Path, listen: str, more: str = "") -> None:
    (home / "apis.yaml").write_text(
        "apis: {a: {base_url: 'http://127.0.0.1:9', allowed_endpoints: [/v1/x]}}\n"
        f"server: {{listen: ['{listen}']{more}}}\n"
    )


@contextmanager
def service(
    home: Path,
    name: bytes | str,
    descriptors: tuple[int, ...] = (),
    options: Sequence[str] = ("--pidfile=",),
    **env: str,
) -> Iterator[subprocess.Popen[bytes]]:
    """The daemon as the unit starts it; what it is given as descriptors it has from 3 on."""
    places = "".join(f" {number + 3}<&{descriptor}" for number, descriptor in enumerate(descriptors))
    shell = f'LISTEN_PID=$$ exec "{TWISTD}" -n {" ".join(options)} llmproxy --config apis.yaml{places}'
    with (home / "log").open("ab") as log:
        process = subprocess.Popen(
            ["bash", "-c", shell], cwd=home, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=descriptors,
            env={**os.environ, "NOTIFY_SOCKET": os.fsdecode(name), **env},
        )  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """What listens where a service manager would."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(60)
        yield listening


@pytest.mark.parametrize(
    "workers", ["", pytest.param(", workers: 2", marks=pytest.mark.long("3 s: what one process tells systemd"))]
)
def test_ready_alive_and_stopping(tmp_path: Path, manager: socket.socket, workers: str) -> None:
    port = free_port()
    settings(tmp_path, f"tcp:{port}:interface=127.0.0.1", workers)
    with service(tmp_path, manager.getsockname(), WATCHDOG_USEC="200000") as process:
        assert manager.recv(4096).startswith(b"READY=1\n")
        with urllib.request.urlopen(f"http://{HOST}:{port}/ready", timeout=10) as answer:
            assert answer.status == 200, "it says so when it is"
        assert [manager.recv(4096) for _ in range(3)] == [b"WATCHDOG=1"] * 3
        process.send_signal(signal.SIGTERM)
        eventually(lambda: manager.recv(4096).startswith(b"STOPPING=1\n"))
        assert process.wait(30) == 0


def test_a_start_that_fails_says_why(tmp_path: Path, manager: socket.socket) -> None:
    with socket.create_server((HOST, 0)) as busy:
        settings(tmp_path, f"tcp:{busy.getsockname()[1]}:interface=127.0.0.1")
        with service(tmp_path, manager.getsockname()) as process:
            assert b"STATUS=It cannot listen on" in manager.recv(4096)
            assert process.wait(30) == 1


@pytest.mark.long("1 s: nobody reads what is told, as without a service manager")
def test_a_service_manager_that_is_gone(tmp_path: Path) -> None:
    """Nothing depends on it."""
    port = free_port()
    settings(tmp_path, f"tcp:{port}:interface=127.0.0.1")
    with service(tmp_path, str(tmp_path / "nobody"), WATCHDOG_USEC="100000"):
        eventually(lambda: "Ready: 1 APIs." in (tmp_path / "log").read_text(), 60)
        with urllib.request.urlopen(f"http://{HOST}:{port}/live", timeout=10) as answer:
            assert answer.status == 200


@pytest.mark.long("1 s: sockets that are passed on, as at a hot restart")
def test_sockets_that_systemd_has_opened(tmp_path: Path, manager: socket.socket) -> None:
    with socket.create_server((HOST, 0)) as listening:
        settings(tmp_path, "systemd:domain=INET:index=0")
        with service(tmp_path, manager.getsockname(), (listening.fileno(),), LISTEN_FDS="1", LISTEN_FDNAMES="http"):
            assert manager.recv(4096).startswith(b"READY=1\n")
            with urllib.request.urlopen(f"http://{HOST}:{listening.getsockname()[1]}/live", timeout=10) as answer:
                assert answer.status == 200


def test_the_unit() -> None:
    """It starts what is tested here, and gives a drain longer than the daemon takes."""
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(UNIT)
    of = unit["Service"]
    assert of["Type"] == "notify" and of["ExecStart"].endswith("twistd -n llmproxy --config /etc/llmproxy/apis.yaml")
    assert (
        int(of["TimeoutStopSec"].removesuffix("s")) > Server().drain_timeout
        and of["ExecReload"] == "/bin/kill -HUP $MAINPID"
    )
