"""SIGUSR2 with one worker: a fresh process takes over, and nobody notices."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from tests.integration.test_systemd import manager, service, settings
from tests.support.processes import HOST, free_port
from tests.support.rolled import ended_afterwards, successors
from tests.support.stack import MANAGEMENT, SETTINGS, Stack, eventually
from tests.support.workers import WorkerStack, is_running, workers_of

__all__ = ["manager"]  # a fixture

TWISTD = Path(sys.executable).with_name("twistd")
CHAT = "/v1/chat/completions"
STREAM = json.dumps(
    {"model": "gpt-4o", "max_tokens": 400, "stream": True, "messages": [{"role": "user", "content": "x"}]}
).encode()
PATIENCE = 60.0
PASSWORD = "hunter22"
# Between two requests of a client: the processes that start need a processor too.
PAUSE_SECONDS = 0.01 if os.environ.get("CI") else 0.03


class RollingStack(Stack):
    starts_others = True


@contextmanager
def rolling(home: Path, further: str = "") -> Iterator[Stack]:
    with RollingStack(home, further=further) as stack, ended_afterwards(stack.daemon.output):
        yield stack


def roll(stack: Stack, pid: int) -> int:
    """Have this process replaced; the one that serves now."""
    before = successors(stack.daemon.output())
    os.kill(pid, signal.SIGUSR2)
    eventually(lambda: successors(stack.daemon.output())[len(before) :], PATIENCE)
    return successors(stack.daemon.output())[-1]


def metrics(stack: Stack) -> str:
    asked = urllib.request.Request(f"{stack.url}/metrics", headers={"Authorization": f"Bearer {MANAGEMENT}"})
    with urllib.request.urlopen(asked, timeout=20) as answer:
        return str(answer.read().decode())


class Asking:
    """Clients that ask again and again, each on a connection that it keeps as long as it is let, for a block's time."""

    def __init__(self, stack: Stack, clients: int = 4) -> None:
        self.statuses: list[int] = []
        self.failures: list[str] = []
        self._stack = stack
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(clients)]

    def _ask(self) -> None:
        connection: http.client.HTTPConnection | None = None
        while not self._over.wait(PAUSE_SECONDS):
            connection = connection or http.client.HTTPConnection(HOST, self._stack.daemon.port, timeout=30)
            try:
                connection.request("GET", "/v1/models", headers={"Authorization": f"Bearer {self._stack.token}"})
                answer = connection.getresponse()
                answer.read()
                self.statuses.append(answer.status)
            except (OSError, http.client.HTTPException) as e:
                self.failures.append(repr(e))
                connection.close()
                connection = None
        if connection is not None:
            connection.close()

    def __enter__(self) -> Asking:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *how: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(40)


class TestInTheForeground:
    @pytest.mark.long("4 s: two restarts under load")
    def test_nobody_notices(self, tmp_path: Path) -> None:
        """Twice in a row: streams that are under way finish, requests on kept connections and on new ones succeed."""
        with ThreadPoolExecutor(6) as pool, rolling(tmp_path) as stack:
            before = len(stack.recorded())
            slow = {"X-Sim-Delay": "0,0.2", "X-Sim-Events": "40"}
            streams = [pool.submit(stack.ask, "POST", CHAT, STREAM, slow) for _ in range(6)]
            eventually(lambda: len(stack.recorded()) == before + 6, PATIENCE)
            with Asking(stack) as asking:
                eventually(lambda: len(asking.statuses) > 20, PATIENCE)
                second = roll(stack, stack.daemon.pid)
                seen = len(asking.statuses)
                eventually(lambda: len(asking.statuses) > seen + 20, PATIENCE)
                third = roll(stack, second)
                seen = len(asking.statuses)
                eventually(lambda: len(asking.statuses) > seen + 20, PATIENCE)
            assert (set(asking.statuses), asking.failures) == ({200}, [])
            assert all(each.result(PATIENCE).body.rstrip().endswith(b"[DONE]") for each in streams)
            eventually(lambda: stack.daemon.ended, PATIENCE)
            assert stack.daemon.stop() == 0
            eventually(lambda: not is_running(second), PATIENCE)
            assert is_running(third)
            assert stack.ask("GET", "/v1/models").status == 200
            assert stack.manage("GET", "/ready")["checks"]["roll"] == "ok"

            def lines() -> bool:
                rows = stack.manage("GET", f"/manage/usage?group_by=project&project_id={stack.project}")["data"]
                return sum(row["requests"] for row in rows) == 6 + len(asking.statuses) + 1

            eventually(lines, PATIENCE)
            os.kill(third, signal.SIGTERM)
            eventually(lambda: not is_running(third), PATIENCE)
            with pytest.raises(OSError):
                socket.create_connection((HOST, stack.daemon.port), 5).close()

    def test_takes_up_settings_that_need_a_restart(self, tmp_path: Path) -> None:
        with rolling(tmp_path) as stack:
            path, port = tmp_path / "llmproxy.yaml", free_port()
            old = f'"tcp:{stack.daemon.port}:interface=127.0.0.1"'
            path.write_text(path.read_text().replace(old, f'{old}, "tcp:{port}:interface=127.0.0.1"'))
            roll(stack, stack.daemon.pid)
            with closing(http.client.HTTPConnection(HOST, port, timeout=20)) as connection:
                connection.request("GET", "/live")
                assert connection.getresponse().status == 200

    @pytest.mark.parametrize(
        "wrong, why",
        [
            ("no_such_setting: 1\n", "no_such_setting"),
            ("state_dir: /dev/null/x\n", "Not a directory"),
            ("audit: {file: /dev/null/x}\n", "/dev/null is no directory"),
            (f"store: {{url: 'postgresql://u:{PASSWORD}@x@127.0.0.1:1/db'}}\n", "has an @ in its password"),
            (f"store: {{url: 'postgresql://u@127.0.0.1:1/db?password={PASSWORD}'}}\n", "db?password=*** could not be"),
        ],
    )
    @pytest.mark.long("2 s: five reasons for which a successor ends")
    def test_a_successor_that_cannot_start_changes_nothing(self, tmp_path: Path, wrong: str, why: str) -> None:
        """The log, the ready page and a figure say why; when it is mended, it works."""
        with rolling(tmp_path) as stack:
            path = tmp_path / "llmproxy.yaml"
            right = path.read_text()
            key = wrong.partition(":")[0]
            path.write_text(re.sub(rf"(?m)^{key}:.*\n", "", right) + wrong)
            os.kill(stack.daemon.pid, signal.SIGUSR2)
            eventually(lambda: "Not rolled: " in stack.daemon.output(), PATIENCE)
            said = stack.manage("GET", "/ready")
            assert (said["checks"]["roll"], said["status"]) == ("not rolled (see the log)", "degraded")
            assert why in stack.daemon.output().partition("Not rolled: ")[2].partition("\n")[0]
            assert PASSWORD not in stack.daemon.output() + stack.ask("GET", "/ready").body.decode()
            assert "llmproxy_roll_failures_total 1.0" in metrics(stack)
            assert stack.ask("GET", "/v1/models").status == 200
            path.write_text(right)
            roll(stack, stack.daemon.pid)
            assert stack.manage("GET", "/ready")["status"] == "ok"

    @pytest.mark.long("2 s: a successor that cannot be imported, as one that cannot start")
    def test_new_code_that_is_broken(self, tmp_path: Path) -> None:
        """What Python says of it is in the log of the process that goes on."""
        (tmp_path / "code").mkdir()
        env = {"PYTHONPATH": str(tmp_path / "code")}
        with Stack(tmp_path, env=env) as stack, ended_afterwards(stack.daemon.output):
            (tmp_path / "code" / "sitecustomize.py").write_text(
                "import sys\nif 'llmproxy' in sys.argv or '-c' in sys.argv:\n"
                "    sys.modules['llmproxy.process.signals'] = None\n"
            )
            os.kill(stack.daemon.pid, signal.SIGUSR2)
            eventually(lambda: "Not rolled: The new process did not start" in stack.daemon.output(), PATIENCE)
            assert "ModuleNotFoundError: import of llmproxy.process.signals halted" in stack.daemon.output()
            assert stack.ask("GET", "/v1/models").status == 200

    def test_several_workers_take_a_restart(self, tmp_path: Path) -> None:
        with rolling(tmp_path) as stack:
            path = tmp_path / "llmproxy.yaml"
            path.write_text(path.read_text().replace("server: {", "server: {workers: 2, "))
            os.kill(stack.daemon.pid, signal.SIGUSR2)
            eventually(lambda: "Not rolled: server.workers is 2 now" in stack.daemon.output(), PATIENCE)
            assert stack.ask("GET", "/v1/models").status == 200


def unix_answers(path: Path) -> bool:
    with closing(socket.socket(socket.AF_UNIX)) as client:
        client.settimeout(10)
        client.connect(str(path))
        client.sendall(b"GET /live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return client.recv(100).startswith(b"HTTP/1.1 200 ")


class WithUnixSocket(WorkerStack):
    settings = SETTINGS.replace('interface=127.0.0.1"]', 'interface=127.0.0.1", "unix:{home}/s:mode=660"]')


class TestInTheBackground:
    @pytest.mark.long("3 s: in the background, as in the foreground")
    def test_pid_file_log_and_unix_socket(self, tmp_path: Path) -> None:
        """The pid file names whoever serves; a UNIX socket keeps its permissions, and is removed by the last one."""
        local = tmp_path / "s"
        settings(tmp_path, f"unix:{local}:mode=660")
        subprocess.run(
            [str(TWISTD), "--pidfile=own.pid", "--logfile=own.log", "llmproxy", "--config", "apis.yaml"],
            cwd=tmp_path, check=True, timeout=120,
        )  # fmt: skip
        log, pid_file = tmp_path / "own.log", tmp_path / "own.pid"
        first = int(pid_file.read_text())
        with ended_afterwards(log.read_text):
            try:
                for count in (1, 2):
                    before = int(pid_file.read_text())
                    os.kill(before, signal.SIGUSR2)
                    eventually(lambda count=count: len(successors(log.read_text())) == count, PATIENCE)
                    assert int(pid_file.read_text()) == successors(log.read_text())[-1] != before
                    eventually(lambda before=before: not is_running(before), PATIENCE)
                    assert unix_answers(local)
                    assert stat.S_IMODE(local.stat().st_mode) == 0o660
                os.kill(int(pid_file.read_text()), signal.SIGTERM)
                eventually(lambda: not pid_file.exists(), PATIENCE)
                assert not local.exists() and not (tmp_path / "s.lock").is_symlink()
            finally:
                with suppress(ProcessLookupError):
                    os.kill(first, signal.SIGKILL)

    @pytest.mark.long("6 s: a UNIX socket stays where it is with several workers, as with one process")
    def test_a_unix_socket_of_several_workers(self, tmp_path: Path) -> None:
        """It keeps its permissions, and survives that workers are rolled."""
        local = tmp_path / "s"
        with WithUnixSocket(tmp_path, 2) as stack:
            for count in (1, 2):
                old = workers_of(stack.daemon.pid)
                os.kill(stack.daemon.pid, signal.SIGUSR2)
                eventually(lambda count=count: stack.daemon.output().count("Rolled 2 workers") == count, PATIENCE)
                eventually(lambda old=old: not any(map(is_running, old)), PATIENCE)
                assert all(unix_answers(local) for _ in range(10))
                assert stat.S_IMODE(local.stat().st_mode) == 0o660


class TestUnderSystemd:
    @pytest.mark.long("2 s: under systemd, as in the foreground")
    def test_the_main_process(self, tmp_path: Path, manager: socket.socket) -> None:
        """It is told which process is the service now, is kept alive by that one, and hears of no stop."""
        port = free_port()
        settings(tmp_path, f"tcp:{port}:interface=127.0.0.1")
        log = tmp_path / "log"
        with (
            service(tmp_path, manager.getsockname(), WATCHDOG_USEC="400000") as process,
            ended_afterwards(log.read_text),
        ):
            assert manager.recv(4096).startswith(b"READY=1\n")
            process.send_signal(signal.SIGUSR2)
            said = [manager.recv(4096)]
            while not said[-1].startswith(b"MAINPID="):
                said.append(manager.recv(4096))
            assert process.wait(60) == 0
            pid = successors(log.read_text())[-1]
            assert said[-1] == b"MAINPID=%d\nSTATUS=Serving." % pid
            assert manager.recv(4096).startswith(b"READY=1\n")
            assert {manager.recv(4096) for _ in range(3)} == {b"WATCHDOG=1"}
            os.kill(pid, signal.SIGTERM)
            eventually(lambda: manager.recv(4096).startswith(b"STOPPING=1\n"))
            eventually(lambda: not is_running(pid), PATIENCE)

    @pytest.mark.long("2 s: sockets that systemd has opened, as one's own")
    def test_sockets_that_systemd_has_opened(self, tmp_path: Path, manager: socket.socket) -> None:
        with socket.create_server((HOST, 0)) as listening:
            settings(tmp_path, "systemd:domain=INET:index=0")
            port, log = listening.getsockname()[1], tmp_path / "log"
            with (
                service(
                    tmp_path, manager.getsockname(), (listening.fileno(),), LISTEN_FDS="1", LISTEN_FDNAMES="http"
                ) as process,
                ended_afterwards(log.read_text),
            ):
                assert manager.recv(4096).startswith(b"READY=1\n")
                process.send_signal(signal.SIGUSR2)
                assert process.wait(60) == 0
                with closing(http.client.HTTPConnection(HOST, port, timeout=20)) as connection:
                    connection.request("GET", "/live")
                    assert connection.getresponse().status == 200
