"""Runs of pytest in which a process ends in the middle of a test: they come to an end, and say which test it was."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = 8
ENDS = "import os\ndef test_ends(): os._exit(1)\n"
ENDS_ONCE = """
import os
def test_ends(tmp_path_factory):
    seen = tmp_path_factory.getbasetemp().parent / "seen"
    if not seen.exists():
        seen.touch()
        os._exit(1)
"""
PLUGIN = "from tests.conftest import pytest_xdist_make_scheduler\n"


def run(folder: Path, file: str) -> tuple[int, str]:
    (folder / "conftest.py").write_text(PLUGIN)
    for number in range(FILES):
        (folder / f"test_{number}.py").write_text(
            "def test_a(): pass\n" + file * (number == 2) + "def test_z(): pass\n"
        )
    command = ["-m", "pytest", "-p", "no:cacheprovider", "--reruns", "1", "-n", "2", "--dist", "loadfile"]
    ran = subprocess.run(
        [sys.executable, *command, f"--basetemp={folder / 'temp'}", "--rootdir", str(folder), str(folder)],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return ran.returncode, ran.stdout


def counts(output: str) -> dict[str, int]:
    return {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|rerun)\b", output.splitlines()[-1])}


@pytest.mark.parametrize(
    ("file", "status", "expected"),
    [
        pytest.param(ENDS, 1, {"passed": 2 * FILES, "failed": 1, "rerun": 1}, id="always"),
        pytest.param(
            ENDS_ONCE,
            0,
            {"passed": 2 * FILES + 1, "rerun": 1},
            id="once",
            marks=pytest.mark.long("4 s: the same, and the test is none that fails"),
        ),
    ],
)
def test_process_that_ends(tmp_path: Path, file: str, status: int, expected: dict[str, int]) -> None:
    ended, output = run(tmp_path, file)
    assert (ended, counts(output)) == (status, expected), output
    assert "test_2.py::test_ends" in output or status == 0
