"""The benchmark measures what it says: it starts the daemon, and gets good answers through it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import unittest
from pathlib import Path

import pytest

RUN = Path(__file__).parents[2] / "bench" / "run.py"
MISSING = [tool for tool in ("gcc", "taskset") if shutil.which(tool) is None]


@unittest.skipIf(MISSING, f"not on this machine: {', '.join(MISSING)}")
class BenchTests(unittest.TestCase):
    """C{bench/run.py}, as C{make bench} runs it, for a moment."""

    def test_a_scenario_that_is_none(self) -> None:
        """Before anything is started."""
        done = subprocess.run([sys.executable, RUN, "-k", "j32,j33"], capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 2)
        self.assertIn("j33: there is no such scenario", done.stderr)
        self.assertEqual(done.stdout, "")

    @pytest.mark.long("5 s: a round of the daemon and of what it is compared with")
    def test_one_short_round(self) -> None:
        """Requests are answered, all of them well, and what they cost is told."""
        done = subprocess.run(
            [sys.executable, RUN, "--sut", "llmproxy", "--sut", "plain", "-k", "j32", "-r", "1", "--seconds", "0.5",
             "--settling", "0.1", "--json"],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stderr)
        said = json.loads(done.stdout)
        self.assertEqual((said["missing"], said["flaws"]), ({}, []), done.stderr)
        for system in ("llmproxy", "plain"):
            figures = said["medians"]["j32"][system]
            self.assertGreater(figures["requests"], 0)
            self.assertEqual(figures["bad"], 0)
            self.assertGreater(figures["cpu_us"], 0)
