from __future__ import annotations

from unittest import TestCase

from llmproxy.daemon import BACKLOG, with_backlog


class Roomy(TestCase):
    def test_a_backlog_is_added_where_the_endpoint_takes_one(self) -> None:
        self.assertEqual(
            with_backlog("tcp:8080:interface=127.0.0.1"), f"tcp:8080:interface=127.0.0.1:backlog={BACKLOG}"
        )
        self.assertEqual(with_backlog("unix:/run/x.sock"), f"unix:/run/x.sock:backlog={BACKLOG}")
        self.assertEqual(with_backlog("tls:/etc/pems:8443"), f"tls:/etc/pems:8443:backlog={BACKLOG}")

    def test_what_was_said_stays(self) -> None:
        for endpoint in ("tcp:8080:backlog=5", "systemd:domain=INET:index=0"):
            self.assertEqual(with_backlog(endpoint), endpoint)
