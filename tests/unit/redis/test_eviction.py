"""What a server says of its memory."""

from __future__ import annotations

import unittest

from llmproxy.redis.eviction import evicting_policy

INFO = b"# Memory\r\nused_memory:1000\r\nmaxmemory:%d\r\nmaxmemory_policy:%b\r\nmem_allocator:x:y\r\n"


class EvictionTests(unittest.TestCase):
    def test_policies(self) -> None:
        """All but one drop what limits count, since that has a time to live."""
        for policy in (b"allkeys-lru", b"allkeys-random", b"volatile-lru", b"volatile-ttl", b"allkeys-lfu"):
            self.assertEqual(evicting_policy(INFO % (1 << 20, policy)), policy.decode())
            self.assertEqual(evicting_policy(INFO % (0, policy)), "")
        self.assertEqual(evicting_policy(INFO % (1 << 20, b"noeviction")), "")

    def test_what_does_not_say(self) -> None:
        for info in (b"", b"# Memory\r\nused_memory:1\r\n", b"\xff\x00"):
            self.assertEqual(evicting_policy(info), "")
