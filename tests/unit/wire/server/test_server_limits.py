"""The bounds of a server."""

from __future__ import annotations

from unittest import TestCase

from llmproxy.wire.server.server_limits import ServerLimits


class ServerLimitsTests(TestCase):
    def test_what_a_client_must_take(self) -> None:
        self.assertEqual(ServerLimits().min_sent_bytes, 60 * 1024)
        self.assertEqual(ServerLimits(send_timeout=1.5, min_send_rate=3).min_sent_bytes, 4)

    def test_a_client_must_take_something(self) -> None:
        """Were nothing enough, one that takes nothing would never be too slow."""
        self.assertEqual(ServerLimits(send_timeout=0.5, min_send_rate=1).min_sent_bytes, 1)
        self.assertEqual(ServerLimits(min_send_rate=0).min_sent_bytes, 1)
