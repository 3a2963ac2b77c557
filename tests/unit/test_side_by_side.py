"""A run of pytest whose files are run by several processes: each test once, also where one ends its process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.stack import eventually

ROOT = Path(__file__).parents[2]
CONFTEST = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background process ignores it
from tests.support import side_by_side
pytest_addoption = side_by_side.add_option
def pytest_runtestloop(session): return side_by_side.run(session) or None
"""
FILES = {
    "test_ends.py": """
import os
def test_before(): pass
def test_it(): os._exit(1)
def test_after(): pass
""",
    "test_ends_once.py": """
import os
def test_it(tmp_path_factory):
    seen = tmp_path_factory.getbasetemp().parent / "seen"
    if not seen.exists():
        seen.touch()
        os._exit(1)
def test_after(): pass
""",
    "test_ends_before_its_child.py": """
import os, time
def test_it():
    if os.fork():
        os._exit(1)
    time.sleep(60)
""",
    "test_fails.py": """
import pytest, warnings
@pytest.fixture(scope="session")
def shared():
    yield
    raise RuntimeError("what is shared does not end")
def test_it(shared):
    print("what a test has printed")
    warnings.warn("what a test warns of")
    assert False
def test_subtests(subtests):
    with subtests.test("a part"): assert False
""",
    "test_reactor.py": """
import pytest_twisted, time
from twisted.internet.threads import deferToThread
@pytest_twisted.ensureDeferred
async def test_thread(): await deferToThread(time.sleep, 0.1)
""",
    "test_alone.py": """
import pytest, time
@pytest.mark.alone
def test_alone(tmp_path_factory):
    assert list(tmp_path_factory.getbasetemp().parent.glob("*/ended*/"))
def test_beside(tmp_path_factory):
    time.sleep(0.2)
    tmp_path_factory.mktemp("ended")
""",
}
WAITS = """
import time
def test_it(tmp_path_factory):
    (tmp_path_factory.getbasetemp().parent / "waits").touch()
    time.sleep(60)
"""


def start(folder: Path, files: dict[str, str]) -> subprocess.Popen[str]:
    """Run these files in two processes, and say what becomes of each test."""
    for name, source in {"conftest.py": CONFTEST, **files}.items():
        (folder / name).write_text(source)
    options = ["-p", "no:cacheprovider", "-p", "no:xdist", "-rAR", "--reruns", "1", "--processes", "2"]
    return subprocess.Popen(
        [sys.executable, "-m", "pytest", *options, f"--basetemp={folder / 'temp'}", "--rootdir", str(folder)],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> str:
    with start(tmp_path_factory.mktemp("files"), FILES) as ran:
        output, _ = ran.communicate(timeout=60)
    assert ran.returncode == 1, output
    return output


def outcomes(output: str, test: str) -> list[str]:
    lines = [line.split() for line in output.splitlines()]
    return sorted({line[0] for line in lines if len(line) > 1 and line[1] == test and line[0].isupper()})


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        ("test_ends.py::test_before", ["PASSED"]),
        ("test_ends.py::test_it", ["FAILED", "RERUN"]),
        ("test_ends.py::test_after", ["PASSED"]),
        ("test_ends_once.py::test_it", ["PASSED", "RERUN"]),
        ("test_ends_once.py::test_after", ["PASSED"]),
        ("test_ends_before_its_child.py::test_it", ["FAILED", "RERUN"]),
        ("test_fails.py::test_it", ["FAILED", "RERUN"]),
        ("test_fails.py::test_subtests", ["FAILED", "RERUN"]),
        ("test_reactor.py::test_thread", ["PASSED"]),
        ("test_alone.py::test_beside", ["PASSED"]),
        ("test_alone.py::test_alone", ["PASSED"]),
    ],
)
def test_outcome(output: str, test: str, expected: list[str]) -> None:
    assert outcomes(output, test) == expected, output


def test_counts(output: str) -> None:
    """Each test once."""
    assert "5 failed, 7 passed, 3 warnings, 1 error, 5 rerun" in output.splitlines()[-1], output


def test_what_is_said(output: str) -> None:
    assert "ended in the middle of it" in output
    assert "what a test has printed" in output
    assert "RuntimeError: what is shared does not end" in output
    assert "UserWarning: what a test warns of" in output


def test_interrupted(tmp_path: Path) -> None:
    """Nothing goes on."""
    with start(tmp_path, {"test_waits.py": WAITS}) as ran:
        try:
            eventually((tmp_path / "temp" / "waits").exists)
            ran.send_signal(signal.SIGINT)
            output, _ = ran.communicate(timeout=30)
        finally:
            ran.kill()
    assert ran.returncode == pytest.ExitCode.INTERRUPTED, output
