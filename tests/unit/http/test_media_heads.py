from __future__ import annotations

import struct
from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.http.media_heads import medium

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", 1024, 768)
GIF = b"GIF89a" + struct.pack("<HH", 640, 480)
JPEG = b"\xff\xd8\xff\xe1\x00\x10" + bytes(14) + b"\xff\xc2\x00\x11\x08" + struct.pack(">HH", 600, 800) + bytes(9)
WEBP = b"RIFF\0\0\0\0WEBP"
WAV = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0" + struct.pack("<II", 16_000, 32_000)


class Heads(TestCase):
    def test_pictures(self) -> None:
        lossless = b"VP8L\0\0\0\0\x2f" + struct.pack("<I", 299 | 199 << 14)
        for head, size in (
            (PNG, (1024, 768)),
            (GIF, (640, 480)),
            (JPEG, (800, 600)),
            (WEBP + b"VP8X\x0a\0\0\0\0\0\0\0" + (399).to_bytes(3, "little") + (299).to_bytes(3, "little"), (400, 300)),
            (WEBP + lossless, (300, 200)),
            (WEBP + b"VP8 \0\0\0\0\0\0\0\x9d\x01\x2a" + struct.pack("<HH", 320, 240), (320, 240)),
            (b"\xff\xd8\xff\xe1", (0, 0)),
        ):
            found = medium(b"", head, 5000)
            self.assertEqual((found.kind, found.width, found.height), ("image", *size), head)

    def test_sounds(self) -> None:
        self.assertEqual(medium(b"", WAV, 320_000).seconds, 10.0)
        self.assertEqual(medium(b"", b"ID3", 40_000).seconds, 10.0)
        self.assertEqual(medium(b"audio/x", b"?", 20_000).kind, "audio")

    def test_others(self) -> None:
        self.assertEqual(medium(b"", b"%PDF-1.7", 10).kind, "document")
        self.assertEqual(medium(b"video/mp4", b"", 10).kind, "video")
        self.assertEqual(medium(b"", b"hello", 10).kind, "unknown")

    @given(st.sampled_from([PNG, GIF, JPEG, WEBP, WAV, b""]), st.binary(max_size=60))
    def test_any_bytes(self, start: bytes, rest: bytes) -> None:
        for cut in (start, start[: len(start) // 2]):
            self.assertGreaterEqual(medium(b"", cut + rest, 100).width, 0)
