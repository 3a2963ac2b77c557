"""What a test run leaves behind is found, and ended."""

from __future__ import annotations

import os
import subprocess
import sys
import unittest
from pathlib import Path

from tests.support.leftovers import MARK, end_all, leftovers, mark_run


@unittest.skipUnless(Path("/proc/self/environ").exists(), "reads Linux's /proc")
class LeftoverTests(unittest.TestCase):
    def setUp(self) -> None:
        self.run = {"PATH": os.environ["PATH"]}
        mark_run(self.run)

    def start(self, code: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, "-c", code], env=self.run, stdout=subprocess.PIPE)
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        assert process.stdout is not None
        process.stdout.readline()
        return process

    def test_nothing_is_left(self) -> None:
        self.assertEqual(leftovers(self.run[MARK], grace=0), [])

    def test_a_process_that_outlives_the_one_that_started_it(self) -> None:
        """Its parent is gone, so only what it was started with tells to which run it belongs."""
        sleeper = "import time; print(flush=True); time.sleep(60)"
        parent = self.start(
            f"import os, subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {sleeper!r}], stdout=-1);"
            "p.stdout.readline(); print(p.pid, flush=True); os._exit(0)"
        )
        parent.wait(10)
        (left,) = leftovers(self.run[MARK], grace=0)
        self.assertIn("time.sleep(60)", left.command)
        end_all([left])
        self.assertEqual(leftovers(self.run[MARK]), [])

    def test_what_ends_in_time(self) -> None:
        self.start("import time; print(flush=True); time.sleep(0.3)")
        self.assertEqual(leftovers(self.run[MARK]), [])
