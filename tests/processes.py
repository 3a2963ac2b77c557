"""Real daemons for tests: started as their users start them, waited for, and ended by their process id."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

HOST = "127.0.0.1"


def free_port() -> int:
    """A loopback port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


class Daemon:
    """One C{twistd -n …} process, for the time of a C{with} block.

    >>> with Daemon("llmproxy-simulator", "--listen", f"tcp:{port}:interface=127.0.0.1", port=port, log=path) as daemon:
    ...     print(daemon.url, daemon.pid, daemon.output())

    @ivar pid: Its process id.
    @ivar port: The port that is open once it is ready.
    @ivar log: The file that gets its standard output and error.
    """

    def __init__(
        self,
        *args: str,
        port: int,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        patience: float = 20.0,
        through: Sequence[str] = (),
        descriptors: Sequence[int] = (),
    ) -> None:
        """
        @param through: A command that runs the one that is given to it; it has these C{descriptors}.
        """
        self.args = args
        self.port = port
        self.log = log
        self._env = {**os.environ, **(env or {})}
        self._cwd = cwd
        self._patience = patience
        self._through = through
        self._descriptors = descriptors
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Daemon:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the daemon has not been started"
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until its port is open; raise with its log if it ends before or takes too long."""
        twistd = Path(sys.executable).with_name("twistd")
        command = [*self._through, str(twistd), "-n", "--pidfile=", *self.args]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=self._env, cwd=self._cwd,
                pass_fds=tuple(self._descriptors),
            )  # fmt: skip
        try:
            self._wait_for_port(self._process)
        except BaseException:
            self.stop()
            raise

    def stop(self, patience: float = 10.0) -> int:
        """Ask it to end, and make it end after C{patience} seconds; gives its exit status."""
        process = self._process
        assert process is not None, "the daemon has not been started"
        if process.poll() is None:
            process.terminate()
        try:
            return process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        assert self._process is not None, "the daemon has not been started"
        self._process.kill()
        self._process.wait()

    def output(self) -> str:
        """What it has written so far."""
        return self.log.read_text(errors="replace")

    def _wait_for_port(self, process: subprocess.Popen[bytes]) -> None:
        end = time.monotonic() + self._patience
        while time.monotonic() < end:
            if process.poll() is not None:
                raise AssertionError(f"{self.args} ended with {process.returncode}:\n{self.output()}")
            try:
                socket.create_connection((HOST, self.port), 1).close()
                return
            except OSError:
                time.sleep(0.02)
        raise AssertionError(f"{self.args} did not open port {self.port} in {self._patience} s:\n{self.output()}")
