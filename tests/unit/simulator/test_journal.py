"""What is remembered of requests."""

from __future__ import annotations

import base64
import hashlib
import unittest

from twisted.internet.task import Clock

from llmproxy.simulator.journal import KEPT, KEPT_BODY, Journal


class JournalTests(unittest.TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.journal = Journal(self.clock)

    def test_a_request_is_shown_as_it_came(self) -> None:
        entry = self.journal.open(7, b"POST /a?b=%41 HTTP/1.1", [b"hOST:  x", b"A: 1", b"A: 2"])
        entry.receive(b"\x00\xff")
        shown = self.journal.shown()["requests"][0]
        self.assertEqual((shown["method"], shown["target"], shown["connection"]), ("POST", "/a?b=%41", 7))
        self.assertEqual(shown["headers"], ["hOST:  x", "A: 1", "A: 2"])
        self.assertEqual(base64.b64decode(shown["body"]), b"\x00\xff")
        self.assertEqual(shown["body_sha256"], hashlib.sha256(b"\x00\xff").hexdigest())

    def test_a_large_body_is_counted_and_hashed_but_not_kept(self) -> None:
        entry = self.journal.open(1, b"POST / HTTP/1.1", [])
        entry.receive(b"a" * KEPT_BODY)
        self.assertIsNotNone(entry.shown()["body"])
        entry.receive(b"a")
        self.assertIsNone(entry.shown()["body"])
        self.assertEqual(entry.shown()["body_length"], KEPT_BODY + 1)
        self.assertEqual(entry.sha256, hashlib.sha256(b"a" * (KEPT_BODY + 1)).hexdigest())

    def test_only_the_last_ones_are_kept(self) -> None:
        for _ in range(KEPT + 5):
            self.journal.open(1, b"GET / HTTP/1.1", [])
        shown = self.journal.shown()
        self.assertEqual((len(shown["requests"]), shown["requests"][0]["id"], shown["last"]), (KEPT, 6, KEPT + 5))

    def test_since_leaves_out_what_was_seen(self) -> None:
        for _ in range(3):
            self.journal.open(1, b"GET / HTTP/1.1", [])
        self.assertEqual([entry["id"] for entry in self.journal.shown(since=2)["requests"]], [3])

    def test_clearing_forgets_requests_but_numbers_go_on(self) -> None:
        self.journal.open(1, b"GET / HTTP/1.1", [])
        self.journal.clear()
        self.assertEqual(self.journal.stats()["requests"], 0)
        self.assertEqual(self.journal.open(1, b"GET / HTTP/1.1", []).id, 2)

    def test_figures_tell_the_active_from_the_left(self) -> None:
        self.journal.open(1, b"GET / HTTP/1.1", [])
        self.journal.open(1, b"GET / HTTP/1.1", []).left()
        self.journal.open(1, b"GET / HTTP/1.1", []).finished()
        stats = self.journal.stats()
        self.assertEqual((stats["requests"], stats["active"], stats["left"]), (3, 1, 1))
