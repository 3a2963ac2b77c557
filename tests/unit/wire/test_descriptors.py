"""Descriptors that run short."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from llmproxy.wire.descriptors import FOR_FILES, PAUSE_SECONDS, SHOWN_SECONDS, Descriptors, lowest_free

RAISED = """
import resource
from llmproxy.wire.descriptors import raise_soft_limit
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 512))
raise_soft_limit()
print(resource.getrlimit(resource.RLIMIT_NOFILE))
"""
NONE_LEFT = """
import os, resource
from llmproxy.wire.descriptors import lowest_free
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
taken = []
try:
    while True:
        taken.append(os.open(os.devnull, os.O_RDONLY))
except OSError:
    none = lowest_free()
os.close(taken[5])
print(none > 64, lowest_free() == taken[5])
"""


def printed(program: str) -> str:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


class DescriptorsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.next_one = 10
        self.told: list[str] = []
        self.descriptors = Descriptors(self.clock, lambda: 400, lambda: self.next_one)
        self.descriptors.pause = lambda: self.told.append("pause")
        self.descriptors.resume = lambda: self.told.append("resume")

    def test_enough(self) -> None:
        """Nobody is told anything."""
        self.assertTrue(self.descriptors.taken_by_client(299))
        self.assertTrue(self.descriptors.enough_for_provider())
        self.assertFalse(self.descriptors.none_left())
        self.assertEqual((self.told, self.descriptors.state, self.descriptors.shortages), ([], "ok", 0))

    def test_a_client_in_the_last_quarter(self) -> None:
        """It is served; no further one is accepted until there is room again."""
        self.assertTrue(self.descriptors.taken_by_client(300))
        self.assertEqual((self.told, self.descriptors.state), (["pause"], "short"))
        self.next_one = 300
        self.clock.pump([PAUSE_SECONDS] * 3)
        self.assertEqual(self.told, ["pause"])
        self.next_one = 299
        self.clock.advance(PAUSE_SECONDS)
        self.assertEqual((self.told, self.descriptors.state, self.clock.calls), (["pause", "resume"], "short", []))
        self.clock.advance(SHOWN_SECONDS)
        self.assertEqual(self.descriptors.state, "ok")

    def test_what_files_need_is_for_files(self) -> None:
        """Neither clients nor providers get it."""
        last = 400 - FOR_FILES
        self.assertTrue(self.descriptors.taken_by_client(last - 1))
        self.assertFalse(self.descriptors.taken_by_client(last))
        self.next_one = last - 1
        self.assertTrue(self.descriptors.enough_for_provider())
        self.next_one = last
        self.assertFalse(self.descriptors.enough_for_provider())

    def test_none_left(self) -> None:
        """Is a reason for failures, and counted once while it lasts."""
        self.next_one = 400
        self.assertTrue(self.descriptors.none_left())
        self.assertTrue(self.descriptors.none_left())
        self.assertEqual((self.descriptors.shortages, self.told), (1, ["pause"]))
        self.descriptors.close()
        self.assertEqual(self.clock.calls, [])


class SystemTests(SynchronousTestCase):
    def test_the_soft_limit_is_raised(self) -> None:
        """To what the hard one allows."""
        self.assertEqual(printed(RAISED), "(512, 512)")

    def test_the_lowest_free_one(self) -> None:
        """Is what the next call gets; beyond every limit where there is none."""
        self.assertEqual(printed(NONE_LEFT), "True True")
        expected = lowest_free()
        opened = os.open(os.devnull, os.O_RDONLY)
        os.close(opened)
        self.assertEqual(opened, expected)
        self.assertLess(expected, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
