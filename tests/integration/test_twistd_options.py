"""twistd's own options, with the command as its users type it."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_start import answers
from tests.support.processes import HOST, RUN_FIRST, free_port, run_command
from tests.support.stack import eventually

TWISTD = Path(sys.executable).with_name("twistd")
NOBODY = pwd.getpwnam("nobody")
SECRET = "a management token for tests, long enough"


# What twistd's process reads first: once it has changed the user, that user may read everything, as the interpreter and
# the sources may lie where only root may enter. What it may write is what this is about, and remains as it is.
READING = """\
import ctypes, os
original = os.setuid
def setuid(uid):
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(8, 1, 0, 0, 0)  # PR_SET_KEEPCAPS
    original(uid)
    read = 1 << 2  # CAP_DAC_READ_SEARCH
    header, caps = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)(read, read, read)
    if libc.capset(header, caps):
        raise OSError(ctypes.get_errno(), "capset")
    libc.prctl(47, 2, 2, 0, 0)  # PR_CAP_AMBIENT_RAISE: for workers too
os.setuid = setuid
"""


@pytest.fixture
def as_nobody(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() or sys.platform != "linux":
        pytest.skip("only root can have another user run it")
    (home / "sitecustomize.py").write_text(READING)
    monkeypatch.setenv("PYTHONPATH", str(home))


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder of root's that others may enter, which those that pytest makes are not."""
    path = Path(tempfile.mkdtemp(prefix="llmproxy-twistd-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path)


def configure(home: Path, listen: list[str], **sections: Any) -> None:
    api = {"base_url": "http://127.0.0.1:1", "allowed_endpoints": ["/v1/models"]}
    settings = {
        "apis": {"a": api},
        "server": {"listen": listen},
        "events": {"sinks": [{"type": "file", "path": "logs/events.jsonl"}]},
        **sections,
    }
    (home / "apis.yaml").write_text(json.dumps(settings))


def started(home: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """The command that starts it, once it has come back."""
    env = {**os.environ, "LLMPROXY_MANAGEMENT_TOKEN": SECRET}
    if (home / "sitecustomize.py").exists():
        env[RUN_FIRST] = str(home / "sitecustomize.py")
    return run_command([TWISTD, *options, "llmproxy", "--config", "apis.yaml"], cwd=home, env=env)


@contextmanager
def background(home: Path, port: int, *options: str) -> Iterator[int]:
    """A daemon as twistd starts it without C{-n}: its process id, out of its file."""
    done = started(home, "--pidfile=own.pid", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    pid = int((home / "own.pid").read_text())
    try:
        assert answers(port)
        yield pid
    finally:
        os.kill(pid, signal.SIGTERM)
        eventually(lambda: not running(pid))


def running(pid: int) -> bool:
    """A process that has ended, and for which nobody has waited, runs no more."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def user_of(pid: int) -> set[int]:
    """The user and group ids that the process has: real, effective, saved, and for files."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {int(word) for line in lines if line.startswith(("Uid:", "Gid:")) for word in line.split()[1:]}


def manage(port: int, body: object | None = None, path: str = "/manage/projects") -> int:
    request = urllib.request.Request(
        f"http://{HOST}:{port}{path}",
        None if body is None else json.dumps(body).encode(),
        {"Authorization": f"Bearer {SECRET}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return int(answer.status)


def others(home: Path) -> list[str]:
    """What below there does not belong to nobody, but for the file with the settings and twistd's own."""
    paths = [
        path
        for path in home.rglob("*")
        if path.suffix not in (".yaml", ".pid", ".py", ".pyc") and path.name != "__pycache__"
    ]
    return [str(path) for path in paths if (path.stat().st_uid, path.stat().st_gid) != NOBODY[2:4]]


@pytest.mark.usefixtures("as_nobody")
@pytest.mark.parametrize(
    "options",
    [
        pytest.param(["--uid=nobody", "--gid=nogroup"], id="both"),
        pytest.param(["--uid=65534"], id="its-own-group", marks=pytest.mark.long("3 s: as with a group that is named")),
    ],
)
def test_uid(home: Path, options: list[str]) -> None:
    """Whatever the start makes belongs to that user, who goes on with it: after a reload, a rotation, a restart."""
    port = free_port()
    configure(home, [f"tcp:{port}:interface={HOST}"])
    log = home / "logs" / "llmproxy.log"
    for name in ("first", "second"):
        with background(home, port, *options, "--logfile=logs/llmproxy.log") as pid:
            assert user_of(pid) == {NOBODY.pw_uid, NOBODY.pw_gid}
            assert manage(port, {"name": name}) == 201
            assert manage(port, path="/ready") == 200
            log.rename(home / "logs" / f"{name}.log")
            os.kill(pid, signal.SIGUSR1)
            os.kill(pid, signal.SIGHUP)
            eventually(lambda: log.exists() and "Reloaded the settings" in log.read_text())
        assert others(home) == []
        assert "Traceback" not in log.read_text() + (home / "logs" / f"{name}.log").read_text()
    names = {path.name for path in home.rglob("*")}
    assert {"encryption-key", "llmproxy.db", "audit.jsonl", "ledger"} <= names


@pytest.mark.usefixtures("as_nobody")
@pytest.mark.long("2 s: files that root has left for another user")
def test_uid_and_what_root_has_left(home: Path) -> None:
    """The first start was root's own: what it made is handed over."""
    port = free_port()
    configure(home, [f"tcp:{port}:interface={HOST}"])
    with background(home, port, "--logfile=logs/llmproxy.log") as pid:
        assert user_of(pid) == {0}
        assert manage(port, {"name": "first"}) == 201
    (home / "logs").chmod(0o755)
    with background(home, port, "--uid=nobody", "--logfile=logs/llmproxy.log"):
        assert manage(port, {"name": "second"}) == 201
        assert manage(port, path="/ready") == 200
    assert others(home) == [str(home / "logs")]


@pytest.mark.usefixtures("as_nobody")
def test_uid_that_may_not_write(home: Path) -> None:
    """Is said at the start, and not when the first line is lost."""
    (home / "closed").mkdir(mode=0o700)
    configure(home, [f"tcp:{free_port()}:interface={HOST}"], audit={"file": "closed/audit.jsonl"})
    done = started(home, "-n", "--pidfile=", "--uid=nobody")
    assert done.returncode == 1
    assert "llmproxy cannot start: audit.file: " in done.stderr and "Traceback" not in done.stderr


def privileged_port() -> int:
    """One that only root may listen on, free at this moment."""
    first = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    for port in range(min(first, 1024) - 1, 600, -1):
        with suppress(OSError), closing(socket.create_server((HOST, port))):
            return port
    pytest.skip("here anybody may listen on any port")


@pytest.mark.usefixtures("as_nobody")
@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.long("3 s: two workers, as one process"))])
def test_uid_and_a_port_of_roots(home: Path, workers: int) -> None:
    """Listens there before the user is another."""
    port = privileged_port()
    configure(
        home, [f"tcp:{port}:interface={HOST}"], server={"listen": [f"tcp:{port}:interface={HOST}"], "workers": workers}
    )
    with background(home, port, "--uid=nobody", "--logfile=logs/llmproxy.log") as pid:
        assert user_of(pid) == {NOBODY.pw_uid, NOBODY.pw_gid}
        assert manage(port, {"name": "first"}) == 201
    assert others(home) == []


@pytest.mark.parametrize(("option", "mode"), [("--umask=027", 0o640), ("--umask=022", 0o644), ("", 0o600)])
def test_umask(home: Path, option: str, mode: int) -> None:
    """For what has no mode of its own, such as the file with the process's number; secrets are the owner's alone."""
    port = free_port()
    configure(home, [f"tcp:{port}:interface={HOST}"])
    with background(home, port, *filter(None, [option])):
        assert stat.S_IMODE((home / "own.pid").stat().st_mode) == mode
        for name in ("data/encryption-key", "data/llmproxy.db", "twistd.log"):
            assert stat.S_IMODE((home / name).stat().st_mode) == 0o600


def test_rundir(home: Path) -> None:
    """Is where relative paths in the settings begin, from the first file to the last. Those of options do not."""
    port = free_port()
    configure(home, [f"tcp:{port}:interface={HOST}"])
    (home / "run").mkdir()
    done = started(home, "--rundir=run", "--pidfile=own.pid")
    assert done.returncode == 0, done.stdout + done.stderr
    pid = int((home / "own.pid").read_text())
    try:
        os.kill(pid, signal.SIGHUP)
        eventually(lambda: "Reloaded the settings" in (home / "run" / "twistd.log").read_text())
    finally:
        os.kill(pid, signal.SIGTERM)
        eventually(lambda: not running(pid))
    assert {path.name for path in home.iterdir()} == {"apis.yaml", "run"}
    assert {"encryption-key", "llmproxy.db"} <= {path.name for path in (home / "run" / "data").iterdir()}


@pytest.mark.long("2 s: as pid files elsewhere")
def test_pidfile(home: Path) -> None:
    """Is there as long as the process, in the foreground too, whatever its name; without the option there is none
    there."""
    port = free_port()
    configure(home, [f"tcp:{port}:interface={HOST}"])
    for name in ("own.pid", "twistd.pid", ""):
        options = [f"--pidfile={name}"] if name else []
        command = [str(TWISTD), "-n", *options, "llmproxy", "--config", "apis.yaml"]
        with (home / "log").open("wb") as log, subprocess.Popen(command, cwd=home, stdout=log, stderr=log) as process:
            try:
                eventually(lambda process=process: process.poll() is None and answers(port), 60)
                if name:
                    assert int((home / name).read_text()) == process.pid
                else:
                    assert not [*home.glob("*.pid")]
            finally:
                process.terminate()
                process.wait(30)
        assert not [*home.glob("*.pid")]


@pytest.fixture
def syslog() -> Iterator[socket.socket]:
    """What the C library sends messages to: nobody else may be there."""
    path = Path("/dev/log")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        with suppress(OSError):
            receiver.connect(str(path))
            pytest.skip("this machine has a system log of its own")
        try:
            path.unlink(missing_ok=True)  # one that a test left behind, for nobody listens
            receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            receiver.bind(str(path))
        except OSError as e:
            pytest.skip(f"{path}: {e.strerror}")
    with receiver:
        try:
            receiver.settimeout(30)
            yield receiver
        finally:
            path.unlink()


def test_syslog(home: Path, syslog: socket.socket) -> None:
    """Every line of the log is a message, with the name of C{--prefix} and the process's number; no file is made.

    While nobody reads them nobody else waits either.
    """
    port = free_port()
    configure(home, [f"tcp:{port}:interface={HOST}"])
    with background(home, port, "--syslog", "--prefix=our-proxy") as pid:
        for number in range(40):  # more than the kernel holds for a reader
            with pytest.raises(urllib.error.HTTPError):
                manage(port, path=f"/v1/models?{number}")
        messages = [syslog.recv(65536).decode()]
        while sum('"/v1/models"' in message for message in messages) < 40:
            messages.append(syslog.recv(65536).decode())
    assert all(" our-proxy[" in message for message in messages), messages
    assert f" our-proxy[{pid}]: " in messages[-1]
    assert [message for message in messages if "Ready: 1 APIs." in message]
    assert json.loads(messages[-1].partition("]: ")[2].rstrip("\0"))["level"] == "info"
    assert not [*home.glob("*.log")]
