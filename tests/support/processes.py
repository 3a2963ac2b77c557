"""Real daemons for tests, waited for, and ended by their process id.

Most are forked from a server that has read their modules already (L{tests.support.preload}): a start then takes a tenth
of the processor's time. What is about the command itself is started as its users start it: C{Daemon(…, fresh=True)},
C{subprocess.run}.
"""

from __future__ import annotations

import atexit
import ctypes
import multiprocessing
import multiprocessing.forkserver
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from runpy import run_path
from types import TracebackType
from typing import Protocol

from tests.support.ignored_setting import VARIABLE, ignore_as_told
from tests.support.spares import with_spare

HOST = "127.0.0.1"
RUN_FIRST = "TEST_RUN_FIRST"  # a variable: the script that a forked process runs first, as C{sitecustomize} of others
_PATH = "PYTHONPATH"
_PR_SET_PDEATHSIG = 1
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.support.preload"])


def start_server() -> None:
    """Start the server from which daemons are forked; it reads their modules meanwhile."""
    multiprocessing.forkserver.ensure_running()


def share_server() -> None:
    """In a forked process: use the server of the process that it was forked from, which alone can wait for its end."""
    multiprocessing.forkserver._forkserver.ensure_running = lambda: None  # type: ignore[attr-defined]


class Process(Protocol):
    """As much of C{subprocess.Popen} as a L{Daemon} needs."""

    @property
    def pid(self) -> int: ...
    @property
    def returncode(self) -> int | None: ...
    def poll(self) -> int | None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...
    def wait(self, timeout: float | None = None) -> int: ...


class _Forked:
    """A command that was forked where its modules are loaded already."""

    def __init__(
        self,
        argv: Sequence[str],
        stdin: Path,
        stdout: Path,
        stderr: Path,
        env: Mapping[str, str],
        cwd: Path | None,
        starts_others: bool = False,
    ) -> None:
        self._process = _FORKS.Process(
            target=_command,
            args=(list(argv), stdin, stdout, stderr, dict(env), cwd, os.getpgrp(), starts_others),
            daemon=True,
        )
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("a forked command", timeout or 0.0)
        return self._process.exitcode


def _command(
    argv: list[str],
    stdin: Path,
    stdout: Path,
    stderr: Path,
    env: Mapping[str, str],
    cwd: Path | None,
    group: int,
    starts_others: bool,
) -> None:
    """What a forked process does: as the command, with the same arguments, environment and files.

    @param group: That of the process that asks for it: a server may be that of several.
    """
    os.setpgid(0, group)
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    for descriptor, (file, flags) in enumerate(((stdin, os.O_RDONLY), (stdout, append), (stderr, append))):
        opened = os.open(file, flags)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115  # multiprocessing gives its children none
    os.environ.clear()
    os.environ.update(env)
    if cwd is not None:
        os.chdir(cwd)
    end_with_parent()
    sys.argv = argv = with_spare(argv) if starts_others and sys.platform == "linux" else argv
    if first := env.get(RUN_FIRST):
        run_path(first)
    _take_up_path(env.get(_PATH, ""))
    atexit._clear()  # what the server was to do at its own end
    try:
        sys.exit(_main(Path(argv[0]))())
    finally:
        atexit._run_exitfuncs()  # multiprocessing ends its children without that, and a failed start exits by it


def _take_up_path(path: str) -> None:
    """Look for modules and plugins in these folders, as an interpreter that starts."""
    if folders := [folder for folder in path.split(os.pathsep) if folder and folder not in sys.path]:
        from twisted.plugin import getCache, pluginPackagePaths

        import twisted.plugins

        sys.path[:0] = folders
        known = twisted.plugins.__path__
        known.extend(each for each in pluginPackagePaths("twisted.plugins") if each not in known)
        getCache.cache_clear()


def _needs_start(env: Mapping[str, str]) -> bool:
    """Whether these variables have a process do what only one that starts can: load a library before all others, or
    run a C{sitecustomize} before it imports what a forked one has imported."""
    further = {name: value for name, value in env.items() if os.environ.get(name) != value}
    folders = filter(None, further.get(_PATH, "").split(os.pathsep))
    return "LD_PRELOAD" in further or any(Path(folder, "sitecustomize.py").exists() for folder in folders)


def _run_script(path: str) -> None:
    run_path(path, run_name="__main__")


def _main(program: Path) -> Callable[[], object]:
    """What this program calls."""
    if program.suffix == ".py":
        sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115  # each line is seen at once
        return partial(_run_script, str(program))
    if program.name == "llmproxy":
        from llmproxy.cli import main

        return main
    from twisted.scripts.twistd import run

    ignore_as_told()
    return run


def run_command(
    argv: Sequence[str | Path],
    stdin: str = "",
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 120.0,
) -> subprocess.CompletedProcess[str]:
    """As C{subprocess.run} with all output captured, for C{llmproxy}, C{twistd} and scripts: what most of these import
    is loaded already.

    @param argv: The program, with or without its folder, and its arguments.
    @param env: All variables; those of this process where there are none.
    """
    command = [str(word) for word in argv]
    env = os.environ if env is None else env
    if _needs_start(env):
        raise ValueError("These variables are read by an interpreter that starts: call subprocess.run.")
    with tempfile.TemporaryDirectory(prefix="llmproxy-command-") as folder:
        given, out, err = (Path(folder, name) for name in ("stdin", "stdout", "stderr"))
        given.write_text(stdin)
        process = _Forked(command, given, out, err, env, cwd)
        try:
            status = process.wait(timeout)
        except BaseException:
            process.kill()
            raise
        return subprocess.CompletedProcess(command, status, *(each.read_text(errors="replace") for each in (out, err)))


def start_command(
    argv: Sequence[str | Path],
    log: Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    starts_others: bool = False,
) -> Process:
    """As L{run_command}, and do not wait: whoever calls ends it.

    @param log: The file that gets its standard output and error.
    @param starts_others: As L{Daemon} is told.
    """
    command = [str(word) for word in argv]
    return _Forked(command, Path(os.devnull), log, log, os.environ if env is None else env, cwd, starts_others)


def end_with_parent() -> None:
    """On Linux: be killed when the process that started this one ends, however that ends (prctl(2))."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


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
        patience: float = 60.0,
        through: Sequence[str] = (),
        descriptors: Sequence[int] = (),
        fresh: bool = False,
        starts_others: bool = False,
    ) -> None:
        """
        @param starts_others: Whether it starts a successor, or workers of which no variable tells: these are to be
            forked as well.
        @param through: A command that runs the one that is given to it; it has these C{descriptors}.
        @param fresh: Whether it is to be a process of its own from the first instruction.
        """
        self.args = args
        self.port = port
        self.log = log
        self._env = {**os.environ, **(env or {})}
        self._cwd = cwd
        self._patience = patience
        self._through = through
        self._descriptors = descriptors
        self._fresh = fresh or bool(through or descriptors)
        self._starts_others = starts_others
        self._process: Process | None = None

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

    @property
    def ended(self) -> bool:
        """Whether its process has ended."""
        return self._process is not None and self._process.poll() is not None

    @property
    def runs(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and not self.ended

    def start(self) -> None:
        """Start it, unless it runs, and wait until its port is open; raise with its log if it ends before or takes too
        long."""
        if self.runs:
            return
        self._process = self._spawned() if self._fresh or _needs_start(self._env) else self._forked()
        try:
            self._wait_for_port(self._process)
        except BaseException:
            self.stop()
            raise

    def _forked(self) -> Process:
        command = ["twistd", "-n", "--pidfile=", *self.args]
        return _Forked(
            command, Path(os.devnull), self.log, self.log, self._env, self._cwd,
            starts_others=self._starts_others or "LLMPROXY_SERVER_WORKERS" in self._env,
        )  # fmt: skip

    def _spawned(self) -> Process:
        twistd = [str(Path(sys.executable).with_name("twistd"))]
        if self._env.get(VARIABLE):
            twistd = [sys.executable, str(Path(__file__).with_name("ignored_setting.py"))]
        command = [*self._through, *twistd, "-n", "--pidfile=", *self.args]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=self._env, cwd=self._cwd,
                pass_fds=tuple(self._descriptors),
            )  # fmt: skip

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

    def _wait_for_port(self, process: Process) -> None:
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
