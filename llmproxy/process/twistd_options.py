"""What twistd itself is told, and tells, where it runs the daemon: its pid file, and the process that started it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Any

DEFAULT_PID_FILE = "twistd.pid"
_OURS = (b"twistd", b"llmproxy")


class AlreadyRunning(Exception):
    """The pid file names a process that may well be this daemon."""


def check_pid_file(twistd: MutableMapping[str, Any]) -> None:
    """Have no file that was left behind keep twistd from starting.

    In the foreground there need be none, unless one is named: nobody looks there for the process. Elsewhere it is
    removed where the process that it names is this one (a container's first process has always the same number), or is
    no daemon; L{AlreadyRunning} where it may be one. twistd itself looks only whether there is such a process.
    """
    name = twistd.get("pidfile")
    if not name:
        return
    if twistd.get("nodaemon") and name == DEFAULT_PID_FILE:
        twistd["pidfile"] = ""
        return
    try:
        pid = int(Path(name).read_text())
    except (OSError, ValueError):
        return  # twistd says what is wrong with it
    if pid != os.getpid() and _is_daemon(pid):
        raise AlreadyRunning(
            f"{name} says that it runs already, as process {pid}. Stop that (kill {pid}), or name another file with "
            f"twistd --pidfile; if it is another program, remove {name}."
        )
    with suppress(OSError):
        os.remove(name)


def _is_daemon(pid: int) -> bool:
    """Whether there is such a process, and it looks like one of twistd's, or cannot be looked at."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return not Path("/proc/self/cmdline").exists()
    return any(name in command for name in _OURS)


def give_to_user(twistd: MutableMapping[str, Any], directory: str) -> None:
    """Have what was made for this daemon belong to the user that twistd makes it run as (C{--uid}, C{--gid})."""
    uid, gid = (-1 if twistd.get(name) is None else int(twistd[name]) for name in ("uid", "gid"))
    if os.geteuid() or (uid < 0 and gid < 0):
        return
    for folder, _, files in os.walk(directory):
        for path in (folder, *(os.path.join(folder, name) for name in files)):
            os.chown(path, uid, gid, follow_symlinks=False)


def foreground(twistd: Mapping[str, Any]) -> list[str]:
    """twistd's own arguments for a process in the foreground that logs to where this one does, and has no pid file."""
    given = [f"--{name}={twistd[name]}" for name in ("prefix", "reactor") if twistd.get(name)]
    log = twistd.get("logfile") or ("-" if twistd.get("nodaemon", True) else "twistd.log")  # as it would itself
    if log != "-":
        given.append(f"--logfile={os.path.abspath(os.path.join(twistd.get('rundir') or '.', log))}")
    return ["--nodaemon", "--pidfile=", *given, *(["--syslog"] if twistd.get("syslog") else [])]


class StartReport:
    """Tells the terminal, and the process that waits for it, whether the daemon has started.

    twistd lets go of the terminal, and says that all is well, before anything listens. So its pipe to the process that
    started it is kept here until that is known, and a copy of the standard error, which twistd closes.
    """

    def __init__(self, twistd: MutableMapping[str, Any]) -> None:
        self._twistd = twistd
        daemonises = not twistd.get("nodaemon", True)
        self._terminal = os.dup(2) if daemonises else -1
        self._pipe = -1

    def begin(self) -> None:
        """The daemon is about to start: nobody else is to say that it has."""
        pipe = self._twistd.pop("statusPipe", None)
        self._pipe = -1 if pipe is None else pipe

    def succeeded(self) -> None:
        self._close(b"0")

    def failed(self, sentence: str) -> None:
        text = f"llmproxy cannot start: {sentence}\n"
        if self._terminal < 0:
            print(text, end="", file=sys.__stderr__, flush=True)  # sys.stderr is the log by now
        else:
            with suppress(OSError):
                os.write(self._terminal, text.encode("utf-8", "replace"))
        self._close(b"1 see above")

    def _close(self, status: bytes) -> None:
        with suppress(OSError):  # whoever waited may have left
            if self._pipe >= 0:
                os.write(self._pipe, status)
                os.close(self._pipe)
        if self._terminal >= 0:
            os.close(self._terminal)
        self._pipe = self._terminal = -1
