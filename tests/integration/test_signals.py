"""Each signal to a daemon in the foreground, in the background and as systemd starts it: what happens is the same.

C{pytest -s} prints the table.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import pytest

from tests.integration.test_hot_restart import TWISTD
from tests.integration.test_systemd import service, settings
from tests.support.processes import HOST, Process, free_port, start_command
from tests.support.rolled import ended_afterwards, successors
from tests.support.stack import eventually
from tests.support.workers import is_running

PATIENCE = 90.0
MODES = ("foreground", "background", "systemd")
LONG = pytest.mark.long("3 s: signals do the same however a daemon was started")


class Started:
    """A daemon, whichever way it was started.

    @ivar pid: Its number; C{status}: waits for its end, and gives its exit status, or C{None} where it is nobody's.
    """

    def __init__(self, home: Path, port: int, pid: int, status: Callable[[], int | None]) -> None:
        self.home, self.port, self.pid, self.status = home, port, pid, status

    def log(self) -> str:
        """What it writes goes to a file that is moved away, and to the one that takes its place."""
        return "".join(each.read_text() for each in sorted(self.home.glob("own.log*")))

    def serves(self) -> bool:
        with urllib.request.urlopen(f"http://{HOST}:{self.port}/ready", timeout=30) as answer:
            return bool(answer.status == 200)


@contextmanager
def started(mode: str, home: Path) -> Iterator[Started]:
    home.mkdir()
    port = free_port()
    settings(home, f"tcp:{port}:interface=127.0.0.1")
    arguments = ["--logfile=own.log", "--pidfile=own.pid"]
    if mode == "background":
        subprocess.run([TWISTD, *arguments, "llmproxy", "--config", "apis.yaml"], cwd=home, check=True, timeout=120)
        pid = int((home / "own.pid").read_text())
        try:
            yield Started(home, port, pid, lambda: None)
        finally:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return
    with ExitStack() as opened:
        if mode == "systemd":
            manager = opened.enter_context(closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)))
            manager.bind(str(home / "notify"))
            process: Process = opened.enter_context(service(home, manager.getsockname(), options=arguments))
        else:
            command = [TWISTD, "-n", *arguments, "llmproxy", "--config", "apis.yaml"]
            process = start_command(command, home / "log", cwd=home, starts_others=True)
            opened.callback(process.kill)
        daemon = Started(home, port, process.pid, lambda: process.wait(PATIENCE))
        eventually(lambda: (home / "own.log").exists() and "Ready: 1 APIs." in daemon.log(), PATIENCE)
        yield daemon


@pytest.mark.parametrize("mode", [MODES[0], *(pytest.param(each, marks=LONG) for each in MODES[1:])])
def test_the_table(mode: str, tmp_path: Path) -> None:
    table: dict[str, str] = {}
    with started(mode, tmp_path / "a") as daemon, ended_afterwards(daemon.log):
        os.kill(daemon.pid, signal.SIGHUP)
        eventually(lambda: "Reloaded the settings" in daemon.log(), PATIENCE)
        table["SIGHUP"] = "settings reloaded"
        log = daemon.home / "own.log"
        log.rename(daemon.home / "own.log.1")
        os.kill(daemon.pid, signal.SIGUSR1)
        eventually(log.exists, PATIENCE)
        table["SIGUSR1"] = "log file opened anew"
        os.kill(daemon.pid, signal.SIGUSR2)
        [successor] = eventually(lambda: successors(daemon.log()), PATIENCE)
        assert daemon.status() in (0, None)
        eventually(lambda: not is_running(daemon.pid), PATIENCE)
        assert daemon.serves() and int((daemon.home / "own.pid").read_text()) == successor
        table["SIGUSR2"] = "a successor serves, the pid file names it, the old one ended with 0"
        os.kill(successor, signal.SIGINT)
        eventually(lambda: not is_running(successor), PATIENCE)
        assert "Received SIGINT: draining." in daemon.log() and not (daemon.home / "own.pid").exists()
        table["SIGINT"] = "drained, pid file removed"
    with started(mode, tmp_path / "b") as daemon:
        os.kill(daemon.pid, signal.SIGTERM)
        assert daemon.status() in (0, None)
        eventually(lambda: not is_running(daemon.pid), PATIENCE)
        assert "Received SIGTERM: draining." in daemon.log() and not (daemon.home / "own.pid").exists()
        table["SIGTERM"] = "drained, ended with 0, pid file removed"
    print(f"\n{mode}:", *(f"  {name:8} {what}" for name, what in table.items()), sep="\n")
