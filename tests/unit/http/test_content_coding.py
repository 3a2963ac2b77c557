from __future__ import annotations

import gzip
import zlib
from unittest import TestCase

from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from llmproxy.http.content_coding import Decoder, can_decode, decode_whole

ENCODERS = {b"gzip": gzip.compress, b"deflate": zlib.compress, b"zstd": zstd.compress}


def decode(coding: bytes, data: bytes, piece: int = 0) -> tuple[bytes, Decoder]:
    out: list[bytes] = []
    decoder = Decoder(coding, out.append)
    piece = piece or max(len(data), 1)
    for at in range(0, len(data), piece):
        decoder.feed(data[at : at + piece])
    return b"".join(out), decoder


class Decoding(TestCase):
    @given(st.sampled_from(sorted(ENCODERS)), st.binary(max_size=2000), st.integers(1, 100))
    def test_any_pieces(self, coding: bytes, data: bytes, piece: int) -> None:
        got, decoder = decode(coding, ENCODERS[coding](data), piece)
        self.assertEqual((got, decoder.complete), (data, True))

    def test_more_than_one_step(self) -> None:
        data = b"0123456789" * 100_000
        for coding, encode in ENCODERS.items():
            self.assertEqual(decode(coding, encode(data))[0], data)

    def test_members_one_after_the_other(self) -> None:
        got, decoder = decode(b"gzip", gzip.compress(b"a") + gzip.compress(b"b"))
        self.assertEqual((got, decoder.members), (b"ab", 2))

    def test_bombs(self) -> None:
        for coding, encode in ENCODERS.items():
            got, decoder = decode(coding, encode(bytes(50_000_000)), 65_536)
            self.assertTrue(decoder.failed, coding)
            self.assertLess(len(got), 20_000_000)

    def test_what_is_not_so_encoded(self) -> None:
        for coding in ENCODERS:
            self.assertTrue(decode(coding, b"what is this? " * 9)[1].failed, coding)

    def test_cut(self) -> None:
        for coding, encode in ENCODERS.items():
            self.assertFalse(decode(coding, encode(b"hello" * 100)[:-4])[1].complete, coding)

    def test_what_is_readable(self) -> None:
        self.assertEqual([can_decode(each) for each in (b"gzip", b"zstd", b"x-other")], [True, True, False])

    def test_all_of_a_short_body(self) -> None:
        """Nothing of one that is cut, longer than wanted, coded otherwise, or a bomb."""
        for coding, encode in ENCODERS.items():
            body = encode(b"hello" * 100)
            self.assertEqual(decode_whole(coding, body, 500), b"hello" * 100, coding)
            self.assertIsNone(decode_whole(coding, body, 499), coding)
            self.assertIsNone(decode_whole(coding, body[:-4], 500), coding)
            self.assertIsNone(decode_whole(coding, b"what is this? " * 9, 500), coding)
            self.assertIsNone(decode_whole(coding, encode(bytes(50_000_000)), 200_000), coding)
        self.assertIsNone(decode_whole(b"x-other", b"", 500))

    @given(
        st.lists(st.binary(max_size=300), max_size=3), st.binary(max_size=3), st.integers(0, 700), st.integers(0, 30)
    )
    def test_whole_as_in_pieces(self, members: list[bytes], behind: bytes, most: int, cut: int) -> None:
        """Members that follow one another, padding, garbage behind, missing ends: the same, or nothing of several."""
        body = b"".join(map(gzip.compress, members)) + behind
        for sent in (body, body[: len(body) - cut]):
            got, decoder = decode(b"gzip", sent)
            expected = got if decoder.complete and len(got) <= most else None
            whole = decode_whole(b"gzip", sent, most)
            self.assertTrue(whole == expected or (whole is None and len(members) > 1), (whole, expected))
