"""What the kernel knows of a peer that is not read from."""

from __future__ import annotations

import select
import socket
import time
from unittest import TestCase, skipUnless

from llmproxy.wire.socket_state import peer_closed, unacknowledged_bytes


class Peers(TestCase):
    def setUp(self) -> None:
        self.near, self.far = socket.socketpair()
        self.addCleanup(self.near.close)
        self.addCleanup(self.far.close)

    def test_one_that_is_there(self) -> None:
        self.far.send(b"unread")
        self.assertFalse(peer_closed(self.near, half=True))

    @skipUnless(hasattr(select, "POLLRDHUP"), "Linux tells that the other side will send no more; others do not.")
    def test_one_that_will_send_no_more(self) -> None:
        self.far.send(b"unread")
        self.far.shutdown(socket.SHUT_WR)
        self.assertTrue(peer_closed(self.near, half=True))
        self.assertFalse(peer_closed(self.near, half=False))

    def test_one_that_has_left(self) -> None:
        self.far.send(b"unread")
        self.far.close()
        self.assertTrue(peer_closed(self.near, half=False))

    def test_a_transport_without_a_descriptor(self) -> None:
        self.assertFalse(peer_closed(object(), half=True))
        self.near.close()
        self.assertFalse(peer_closed(self.near, half=True))


class Untaken(TestCase):
    def test_what_is_in_our_hands_and_in_the_sockets(self) -> None:
        """On a real connection, the sum goes down when, and only when, the other side reads."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            far = socket.create_connection(server.getsockname())
            near, _ = server.accept()
        self.addCleanup(near.close)
        self.addCleanup(far.close)
        near.setblocking(False)
        try:
            while True:
                near.send(bytes(65536))
        except BlockingIOError:
            pass

        class Transport:
            dataBuffer, offset, _tempDataLen = b"abcde", 2, 10
            fileno = near.fileno

        before = unacknowledged_bytes(Transport())
        self.assertEqual(before, unacknowledged_bytes(near) + 13)
        self.assertGreater(before, 65536)
        self.assertEqual(unacknowledged_bytes(Transport()), before)
        taken = 0
        while taken < 1_000_000:
            taken += len(far.recv(65536))
        end = time.monotonic() + 5
        while unacknowledged_bytes(Transport()) > before - 500_000:
            self.assertLess(time.monotonic(), end)

    def test_a_transport_without_a_descriptor(self) -> None:
        self.assertEqual(unacknowledged_bytes(object()), 0)
        near, far = socket.socketpair()
        near.close()
        far.close()
        self.assertEqual(unacknowledged_bytes(near), 0)
