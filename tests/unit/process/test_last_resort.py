"""A process that hangs at its end."""

from __future__ import annotations

import subprocess
import sys
import time
import unittest

HANGING = """
import threading, time
from llmproxy.process.last_resort import end_within
threading.Thread(target=time.sleep, args=(60,), name="resolver").start()
end_within(0.3)
"""
PROMPT = """
from llmproxy.process.last_resort import end_within
end_within(60)
"""


class EndWithinTests(unittest.TestCase):
    def test_a_thread_that_hangs(self) -> None:
        """The process ends all the same, and says what it waited for."""
        ended = subprocess.run([sys.executable, "-c", HANGING], capture_output=True, text=True, timeout=30, check=False)
        self.assertEqual(ended.returncode, 1)
        self.assertEqual(
            ended.stderr, "llmproxy: ended by force 0.3 s after its last request; it waited for resolver.\n"
        )

    def test_one_that_ends_by_itself(self) -> None:
        """Is not held up, and not touched."""
        begun = time.monotonic()
        ended = subprocess.run([sys.executable, "-c", PROMPT], capture_output=True, text=True, timeout=30, check=False)
        self.assertEqual((ended.returncode, ended.stderr), (0, ""))
        self.assertLess(time.monotonic() - begun, 20)
