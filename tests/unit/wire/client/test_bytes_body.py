"""A body that is all there, on its way out."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from twisted.web.iweb import IBodyProducer
from zope.interface.verify import verifyObject

from llmproxy.wire.client.request_writer import LONG_BYTES, BytesBody


class SlowReaderGuard:
    """A consumer that has its producer pause after every piece."""

    def __init__(self, body: BytesBody, pausing: bool) -> None:
        self.pieces: list[bytes] = []
        self._body = body
        self._pausing = pausing

    def write(self, data: bytes) -> None:
        self.pieces.append(data)
        if self._pausing:
            self._body.pauseProducing()


class BytesBodyTests(SynchronousTestCase):
    def test_short(self) -> None:
        """It leaves at once, as the very object."""
        body = BytesBody(b"x" * LONG_BYTES)
        verifyObject(IBodyProducer, body)
        consumer = SlowReaderGuard(body, pausing=False)
        self.successResultOf(body.startProducing(consumer))  # type: ignore[arg-type]
        self.assertIs(consumer.pieces[0], body.received)

    def test_long(self) -> None:
        """It leaves in pieces as they are taken, and once more for a second attempt."""
        body = BytesBody(bytes(range(256)) * (3 * LONG_BYTES // 256) + b"end")
        for _ in range(2):
            consumer = SlowReaderGuard(body, pausing=True)
            ending = body.startProducing(consumer)  # type: ignore[arg-type]
            for taken in range(1, 4):
                self.assertEqual(len(consumer.pieces), taken)
                self.assertNoResult(ending)
                body.resumeProducing()
            self.successResultOf(ending)
            self.assertEqual(b"".join(consumer.pieces), body.received)

    def test_stopped(self) -> None:
        """No further piece is sent."""
        body = BytesBody(b"x" * (3 * LONG_BYTES))
        consumer = SlowReaderGuard(body, pausing=True)
        ending = body.startProducing(consumer)  # type: ignore[arg-type]
        body.stopProducing()
        body.resumeProducing()
        self.assertNoResult(ending)
        self.assertEqual(len(consumer.pieces), 1)
