"""Commands as the server reads them."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from llmproxy.redis.commands import encode


class EncodeTests(SynchronousTestCase):
    def test_every_kind_of_argument(self) -> None:
        """Bytes as they are, text as UTF-8, numbers as they are written."""
        self.assertEqual(
            encode((b"SET", "clé", b"\r\n\0", 7, 0.25)),
            b"*5\r\n$3\r\nSET\r\n$4\r\ncl\xc3\xa9\r\n$3\r\n\r\n\0\r\n$1\r\n7\r\n$4\r\n0.25\r\n",
        )

    def test_text_that_is_no_unicode(self) -> None:
        """A key made of what a client sent never fails on its way."""
        self.assertEqual(encode(("\ud800",)), b"*1\r\n$3\r\n\xed\xa0\x80\r\n")
