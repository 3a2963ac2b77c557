"""What twistd itself is told, and tells, where it runs the daemon: its pid file, and the process that started it."""

from __future__ import annotations

import atexit
import os
import pwd
import stat
import sys
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager, suppress
from getopt import GetoptError, getopt
from pathlib import Path
from typing import Any

from twisted.application.service import Service

DEFAULT_PID_FILE = "twistd.pid"
_OURS = (b"twistd", b"llmproxy")


class AlreadyRunning(Exception):
    """The pid file names a process that may well be this daemon."""


def check_pid_file(twistd: MutableMapping[str, Any], arguments: Sequence[str]) -> None:
    """Have no file that was left behind keep twistd from starting.

    In the foreground there need be none, unless one is named: nobody looks there for the process. Elsewhere it is
    removed where the process that it names is this one (a container's first process has always the same number), or is
    no daemon; L{AlreadyRunning} where it may be one. twistd itself looks only whether there is such a process.

    @param arguments: Those that the options were read from.
    """
    name = twistd.get("pidfile")
    if not name:
        return
    if twistd.get("nodaemon") and name == DEFAULT_PID_FILE and not _names_pid_file(twistd, arguments):
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


def _names_pid_file(twistd: Any, arguments: Sequence[str]) -> bool:
    """Whether these arguments do: the options that were read from them do not tell a name from twistd's default."""
    try:
        given, _ = getopt(arguments, twistd.shortOpt, twistd.longOpt)
    except GetoptError:
        return False  # whoever runs twistd has read them from elsewhere
    return any(option == "--pidfile" for option, _ in given)


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


class PidFile(Service):
    """twistd's file with the number of the process, also where one process takes the place of another.

    @ivar path: Absolute; C{""} where there is none.
    """

    name: Any = "pid file"

    def __init__(self, twistd: MutableMapping[str, Any], user: User | None = None) -> None:
        """
        @param user: Who is to be able to write it, once twistd has changed the user.
        """
        self._twistd = twistd
        self._user = user
        name = twistd.get("pidfile") or ""
        self.path = os.path.abspath(name) if name else ""

    def privilegedStartService(self) -> None:
        """What twistd calls when it has written the file, and is still root."""
        if self.path and self._user is not None:
            self._user.own_file(self.path)

    @property
    def problem(self) -> str:
        """Why it cannot be made to name another process; C{""} if it can."""
        if not self.path or os.access(self.path, os.W_OK):
            return ""
        return f"The pid file {self.path} cannot be written, and would go on naming this process."

    def leave(self) -> None:
        """It is another process's: twistd is not to remove it when this one ends."""
        self._twistd["pidfile"] = ""

    def take(self, path: str) -> None:
        """Have it name this process, and have twistd remove it in the end."""
        if not path:
            return
        self.path = self._twistd["pidfile"] = path
        text = str(os.getpid())
        try:
            new = f"{path}.new"
            Path(new).write_text(text)
            os.replace(new, path)
        except OSError:  # the folder is not this user's, the file is
            Path(path).write_text(text)


class User:
    """Whom twistd makes the daemon run as once it has started (C{--uid}, C{--gid}), where root starts it."""

    def __init__(self, uid: int, gid: int) -> None:
        self.uid = uid
        self.gid = gid

    @classmethod
    def of(cls, twistd: Mapping[str, Any]) -> User | None:
        """As twistd reads its options; C{None} where whoever starts it stays."""
        uid, gid = twistd.get("uid"), twistd.get("gid")
        if os.geteuid() or (uid is None and gid is None):
            return None
        user = os.getuid() if uid is None else int(uid)
        return cls(user, pwd.getpwuid(user).pw_gid if gid is None else int(gid))

    @contextmanager
    def acting(self) -> Iterator[None]:
        """Have the block's work done, or refused, with this user's permissions."""
        groups, gid = os.getgroups(), os.getegid()
        os.setgroups([self.gid])
        os.setegid(self.gid)
        os.seteuid(self.uid)
        try:
            yield
        finally:
            os.seteuid(0)
            os.setegid(gid)
            os.setgroups(groups)

    def own_folder(self, folder: str) -> None:
        """Make what is missing of it, for this user."""
        missing = []
        path = os.path.abspath(folder)
        while not os.path.lexists(path):
            missing.append(path)
            path = os.path.dirname(path)
        for path in reversed(missing):
            os.mkdir(path, 0o700)
            self._give(path)

    def own_file(self, name: str) -> None:
        """Make it if it is missing; what is there and is root's becomes this user's. A symbolic link stays as it is."""
        self.own_folder(os.path.dirname(os.path.abspath(name)))
        with suppress(FileExistsError):
            os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        self._give(name)

    def own_tree(self, directory: str) -> None:
        """All in it that is root's becomes this user's."""
        for folder, _, files in os.walk(directory):
            for path in (folder, *(os.path.join(folder, name) for name in files)):
                self._give(path)

    def _give(self, path: str) -> None:
        found = os.lstat(path)
        # Not what has further names: the user may have put it there to be given a file of root's.
        if not found.st_uid and (stat.S_ISDIR(found.st_mode) or (stat.S_ISREG(found.st_mode) and found.st_nlink == 1)):
            os.chown(path, self.uid, self.gid, follow_symlinks=False)


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
        # Whoever waits is to find neither a process nor its pid file any more.
        atexit.register(self._close, b"1 see above")

    def _close(self, status: bytes) -> None:
        with suppress(OSError):  # whoever waited may have left
            if self._pipe >= 0:
                os.write(self._pipe, status)
                os.close(self._pipe)
        if self._terminal >= 0:
            os.close(self._terminal)
        self._pipe = self._terminal = -1
