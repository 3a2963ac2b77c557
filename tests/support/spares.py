"""What a forked daemon starts, its workers and its successor, is forked as well: a fifth of the processor's time each.

A spare process stands beside the daemon, forked before that did anything; whoever is to be started is forked from it.
Only on Linux, where such a process becomes the daemon's child as one that it has started itself (prctl(2)).
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import socket
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

SPARE = "spare"  # as /proc and ps name it
_COMMAND = [sys.executable, "-P", "-c", "from twisted.scripts.twistd import run; run()"]
_MAX_BYTES = 100_000  # of a request; Linux passes up to 200 KB at once
_MAX_DESCRIPTORS = 64
_HIGH = 500  # where no process expects a descriptor
_PR_SET_PDEATHSIG, _PR_SET_NAME, _PR_SET_CHILD_SUBREAPER = 1, 15, 36


def with_spare(argv: list[str]) -> list[str]:
    """Have a spare process from now on; returns in each process that is to run C{twistd}, with its arguments.

    In this one they are C{argv}. One that is forked from the spare has the files, variables and folder that it was to
    have.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    if os.fork() == 0:
        ours.close()
        _prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
        return with_spare(_appointed(theirs))
    theirs.close()
    spawn = os.posix_spawnp

    def posix_spawnp(path: str, arguments: Sequence[str], environ: Mapping[str, str], **how: Any) -> int:
        if arguments[: len(_COMMAND)] != _COMMAND:
            return spawn(path, arguments, environ, **how)
        files = _files(how["file_actions"])
        request = [["twistd", *arguments[len(_COMMAND) :]], dict(environ), os.getcwd(), list(files)]
        socket.send_fds(ours, [json.dumps(request).encode()], list(files.values()))
        pid = int(ours.recv(_MAX_BYTES))
        ours.recv(_MAX_BYTES)  # it is a child of this process now
        return pid

    os.posix_spawnp = posix_spawnp
    return argv


def _prctl(option: int, value: int | bytes) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _files(actions: Iterable[tuple[int, ...]]) -> dict[int, int]:
    """The descriptors that a process is to have, and which of this process they are."""
    files = {0: 0, 1: 1, 2: 2}
    for action, *descriptors in actions:
        if action == os.POSIX_SPAWN_DUP2:
            files[descriptors[1]] = files.get(descriptors[0], descriptors[0])
        else:
            files.pop(descriptors[0], None)
    return files


def _appointed(requests: socket.socket) -> list[str]:
    """Fork whenever this is asked for, until whoever asks has ended; returns in each process that was forked."""
    _prctl(_PR_SET_NAME, SPARE.encode())
    while True:
        request, descriptors, _, _ = socket.recv_fds(requests, _MAX_BYTES, _MAX_DESCRIPTORS)
        if not request:
            os._exit(0)
        between = os.fork()  # when it ends, what it has forked is a child of the daemon
        if between == 0:
            pid = os.fork()
            if pid == 0:
                break
            requests.send(str(pid).encode())
            os._exit(0)
        for descriptor in descriptors:
            os.close(descriptor)
        os.waitpid(between, 0)
        requests.send(b"ended")
    argv, environ, folder, places = json.loads(request)
    _prctl(_PR_SET_NAME, b"python")
    _place(dict(zip(places, descriptors, strict=True)))
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(folder)
    return list(argv)


def _place(files: Mapping[int, int]) -> None:
    """Have these descriptors at their places, and no others."""
    high = {place: fcntl.fcntl(descriptor, fcntl.F_DUPFD, _HIGH) for place, descriptor in files.items()}
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor < _HIGH:
            try:
                os.close(descriptor)
            except OSError:  # that of the folder itself
                continue
    for place, descriptor in high.items():
        os.dup2(descriptor, place)
        os.close(descriptor)
