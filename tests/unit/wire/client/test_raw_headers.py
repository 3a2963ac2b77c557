"""Header lines stay as they are, whatever is done to them."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from llmproxy.wire.client.raw_headers import RawHeaders, parsed


class HeadersTests(SynchronousTestCase):
    def test_read(self) -> None:
        headers = RawHeaders([b"x-a: 1", b"X-A:\t2 ", b"B: "])
        self.assertEqual(headers.getRawHeaders(b"X-a"), [b"1", b"2"])
        self.assertEqual(headers.getRawHeaders("x-a"), ["1", "2"])
        self.assertTrue(headers.hasHeader(b"b"))
        self.assertFalse(headers.hasHeader(b"c"))
        self.assertEqual(dict(headers.getAllRawHeaders()), {b"X-A": [b"1", b"2"], b"B": [b""]})
        self.assertEqual(headers, parsed(headers.lines))

    def test_not_changed(self) -> None:
        headers = RawHeaders([b"A: 1"])
        headers.addRawHeader(b"A", b"2")
        headers.setRawHeaders(b"B", [b"2"])
        headers.removeHeader(b"A")
        self.assertIs(headers.copy(), headers)
        self.assertEqual((headers.lines, dict(headers.getAllRawHeaders())), ([b"A: 1"], {b"A": [b"1"]}))
