"""What is held in memory, by everybody together."""

from __future__ import annotations

import resource
import unittest
from pathlib import Path

from llmproxy.errors import BuffersFull
from llmproxy.wire.buffers import MAX_DERIVED_BYTES, Buffers, derived_limit

MIB = 1024 * 1024


class BuffersTests(unittest.TestCase):
    def test_reserve(self) -> None:
        """What does not fit is refused and counted; what is given back can be taken by others."""
        buffers = Buffers(100)
        self.assertTrue(buffers.reserve(60))
        self.assertFalse(buffers.reserve(41))
        self.assertTrue(buffers.reserve(40))
        buffers.hold(-60)
        self.assertTrue(buffers.reserve(41))
        self.assertEqual((buffers.held, buffers.refused), (81, 1))

    def test_larger_than_everything(self) -> None:
        """One is let in while nothing else is held: it would otherwise never be."""
        buffers = Buffers(100)
        self.assertTrue(buffers.reserve(300))
        self.assertFalse(buffers.reserve(1))

    def test_what_was_accepted_counts_beyond_the_limit(self) -> None:
        """And keeps further requests out."""
        buffers = Buffers(100)
        buffers.hold(49)
        self.assertFalse(buffers.tight)
        buffers.hold(1)
        self.assertTrue(buffers.tight)
        buffers.check()
        buffers.hold(70)
        self.assertTrue(buffers.full)
        with self.assertRaises(BuffersFull) as caught:
            buffers.check()
        self.assertEqual((caught.exception.status, caught.exception.retry_after, buffers.refused), (503, 1.0, 1))

    def test_derived(self) -> None:
        """A quarter of what is left of the least that bounds this process."""
        before = resource.getrlimit(resource.RLIMIT_AS)
        self.assertLessEqual(0, derived_limit())
        self.assertLessEqual(derived_limit(), MAX_DERIVED_BYTES)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_AS, before)
        in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (in_use + 400 * MIB, before[1]))
        self.assertLessEqual(derived_limit(), 100 * MIB)
        self.assertGreater(derived_limit(), 50 * MIB)
