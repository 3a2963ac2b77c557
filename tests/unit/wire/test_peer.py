"""What the kernel knows of a peer that is not read from."""

from __future__ import annotations

import select
import socket
from unittest import TestCase, skipUnless

from llmproxy.wire.peer import has_left


class Peers(TestCase):
    def setUp(self) -> None:
        self.near, self.far = socket.socketpair()
        self.addCleanup(self.near.close)
        self.addCleanup(self.far.close)

    def test_one_that_is_there(self) -> None:
        self.far.send(b"unread")
        self.assertFalse(has_left(self.near, half=True))

    @skipUnless(hasattr(select, "POLLRDHUP"), "Linux tells that the other side will send no more; others do not.")
    def test_one_that_will_send_no_more(self) -> None:
        self.far.send(b"unread")
        self.far.shutdown(socket.SHUT_WR)
        self.assertTrue(has_left(self.near, half=True))
        self.assertFalse(has_left(self.near, half=False))

    def test_one_that_has_left(self) -> None:
        self.far.send(b"unread")
        self.far.close()
        self.assertTrue(has_left(self.near, half=False))

    def test_a_transport_without_a_descriptor(self) -> None:
        self.assertFalse(has_left(object(), half=True))
        self.near.close()
        self.assertFalse(has_left(self.near, half=True))
