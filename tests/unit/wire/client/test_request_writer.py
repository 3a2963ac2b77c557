from __future__ import annotations

import socket
from unittest import TestCase

from llmproxy.wire.client.request_writer import LONG_BYTES, BytesBody, RequestWriter

HEAD = b"POST / HTTP/1.1\r\n\r\n"


class Transport:
    """Takes whatever is written."""

    def registerProducer(self, producer: object, streaming: bool) -> None: ...
    def unregisterProducer(self) -> None: ...


class TogetherTests(TestCase):
    """Head and body in one system call, as far as the kernel takes them."""

    def setUp(self) -> None:
        self.near, self.far = socket.socketpair()
        self.addCleanup(self.near.close)
        self.addCleanup(self.far.close)
        self.near.setblocking(False)
        self.far.setblocking(False)
        self.written: list[bytes] = []

    def writer(self, body: bytes) -> RequestWriter:
        return RequestWriter(HEAD, BytesBody(body), lambda data: self.written.append(data) is None, Transport(), print)

    def received(self) -> bytes:
        found = b""
        try:
            while data := self.far.recv(1 << 20):
                found += data
        except BlockingIOError:
            pass
        return found

    def test_all_of_it(self) -> None:
        body = b"x" * 100
        self.assertTrue(self.writer(body).send_at_once(self.near))
        self.assertEqual(self.received(), HEAD + body)

    def test_what_the_kernel_has_no_room_for(self) -> None:
        """It is written as ever, once, and its length is not taken for a wrong one."""
        body = bytes(range(256)) * (LONG_BYTES // 256)
        self.near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        writer = self.writer(body)
        self.assertFalse(writer.send_at_once(self.near))
        writer.start()
        self.assertTrue(writer.finished)
        came = self.received()
        self.assertGreater(len(came), len(HEAD))
        self.assertEqual(came + b"".join(self.written), HEAD + body)

    def test_a_full_buffer(self) -> None:
        """Nothing has left; all is written as ever."""
        try:
            while True:
                self.near.send(b"y" * 65536)
        except BlockingIOError:
            pass
        writer = self.writer(b"x" * 100)
        self.assertFalse(writer.send_at_once(self.near))
        writer.start()
        self.assertEqual(b"".join(self.written), HEAD + b"x" * 100)

    def test_a_long_body(self) -> None:
        """It leaves in chunks, as the provider takes them."""
        self.assertFalse(self.writer(b"x" * (LONG_BYTES + 1)).send_at_once(self.near))
        self.assertEqual(self.received(), b"")
