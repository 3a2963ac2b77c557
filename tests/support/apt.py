"""Programs of Debian's that a test needs: installed where they are missing and may be."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

INSTALL_SECONDS = 200.0  # within the time after which a test that hangs is ended


def program(name: str, *packages: str) -> str:
    """Where it is; these packages are installed where it is missing. Skips, and says why, where that fails."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    found = shutil.which(name, path=path)
    if found is None:
        if os.geteuid() or not shutil.which("apt-get"):
            pytest.skip(f"There is no {name} here, and only root can install Debian's.")
        end = time.monotonic() + INSTALL_SECONDS
        with one_at_a_time(end):
            apt("update", end=end)
            failure = apt("install", "-y", "--no-install-recommends", *packages, end=end)
        if failure:
            pytest.skip(f"There is no {name} here, and apt does not install it: {failure}")
        found = shutil.which(name, path=path)
    assert found
    return found


@contextmanager
def one_at_a_time(end: float) -> Iterator[None]:
    """Wait until then at most for other processes that install something: apt does not wait by itself."""
    with (Path(tempfile.gettempdir()) / "llmproxy-tests-apt.lock").open("w") as lock:
        while time.monotonic() < end:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(0.2)
            else:
                break
        yield


def apt(*arguments: str, end: float) -> str:
    """What went wrong; C{""} where nothing did."""
    try:
        done = subprocess.run(
            ["apt-get", "-q", *arguments],
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=max(1.0, end - time.monotonic()),
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"not within {INSTALL_SECONDS:g} s"
    return (done.stderr.strip() or f"status {done.returncode}")[-500:] if done.returncode else ""
