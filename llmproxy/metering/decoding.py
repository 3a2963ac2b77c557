"""Decodes a copy of what passes, within bounds: what is too much of it is not measured."""

from __future__ import annotations

import zlib
from collections.abc import Callable

PIECE = 64 * 1024  # bytes that are decoded at a time
FREE = 4 * 1024 * 1024  # bytes that anything may decode to
RATIO = 200  # bytes that one byte may decode to beyond that; texts reach 50, bombs 1000


class Decoder:
    """Hands what C{gzip} or C{deflate} encodes to C{take}, piece by piece.

    @ivar failed: Whether it gave up: on what is not so encoded, or on too much of it.
    """

    def __init__(self, encoding: bytes, take: Callable[[bytes], object]) -> None:
        self._take = take
        self._deflate = encoding == b"deflate"
        self._stream = None if self._deflate else _gzip()
        self._in = self._out = 0
        self._start = b""
        self.failed = False

    def feed(self, data: bytes) -> None:
        """The next encoded bytes."""
        if self.failed:
            return
        self._in += len(data)
        if self._stream is None:
            self._start += data
            if len(self._start) < 2:
                return
            data, self._start = self._start, b""
            self._stream = zlib.decompressobj(zlib.MAX_WBITS if _has_zlib_head(data) else -zlib.MAX_WBITS)
        try:
            self._decode(data)
        except zlib.error:
            self.failed = True

    def _decode(self, data: bytes) -> None:
        while data and not self.failed:
            assert self._stream is not None
            if self._stream.eof:
                if self._deflate or not data.strip(b"\0"):
                    return  # padding
                self._stream = _gzip()  # RFC 1952: members may follow one another
            decoded = self._stream.decompress(data, PIECE)
            data = self._stream.unused_data if self._stream.eof else self._stream.unconsumed_tail
            self._out += len(decoded)
            if self._out > FREE + RATIO * self._in:
                self.failed = True
            elif decoded:
                self._take(decoded)


def _gzip() -> zlib._Decompress:
    return zlib.decompressobj(zlib.MAX_WBITS + 16)


def _has_zlib_head(data: bytes) -> bool:
    """Whether it begins as RFC 1950 says; some send RFC 1951 alone under the same name."""
    return data[0] & 0x0F == 8 and int.from_bytes(data[:2], "big") % 31 == 0
