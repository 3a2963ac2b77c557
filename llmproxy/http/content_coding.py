"""Decodes a copy of what passes, within bounds: what is too much of it is not read.

C{gzip} and C{deflate} always (RFC 9110, section 8.4.1); C{zstd} and C{br} where a codec can be imported.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, Protocol

MAX_DECODED_CHUNK_BYTES = 64 * 1024  # bytes that are decoded at a time
ALWAYS_ALLOWED_BYTES = 4 * 1024 * 1024  # bytes that anything may decode to
MAX_EXPANSION_RATIO = 200  # bytes that one byte may decode to beyond that; texts reach 50, bombs 1000
MAX_WINDOW_LOG = 23  # of zstd: 8 MiB, what RFC 9659 allows for Content-Encoding

_GZIP = frozenset((b"gzip", b"x-gzip"))
_ALWAYS = _GZIP | {b"deflate"}


class _Codec(Protocol):
    """One coding of one body: as L{zlib.decompressobj}, whose errors are C{ValueError}s here."""

    @property
    def eof(self) -> bool: ...
    @property
    def left(self) -> bytes:
        """What is behind the end."""

    def decode(self, data: bytes) -> bytes:
        """The next decoded bytes, at most L{MAX_DECODED_CHUNK_BYTES}; C{data} is C{b""} where some are left within."""


class Decoder:
    """Hands what is encoded to C{take}, chunk by chunk.

    @ivar failed: Whether it gave up: on what is not so encoded, or on too much of it.
    @ivar received: Bytes that came, as they were encoded.
    @ivar complete: Whether the encoded stream has come to its end, with nothing behind it.
    """

    def __init__(self, encoding: bytes, take: Callable[[bytes], object]) -> None:
        """
        @param encoding: One that is L{can_decode}.
        """
        self._take = take
        self._encoding = encoding
        self._stream: _Codec | None = None if encoding == b"deflate" else _begin(encoding)
        self.received = self._out = 0
        self._start = b""
        self.failed = False
        self.members = 1

    @property
    def complete(self) -> bool:
        return self._stream is not None and self._stream.eof and not self.failed

    def feed(self, data: bytes) -> None:
        """The next encoded bytes."""
        for _ in self.decode_in_steps(data):
            pass

    def decode_in_steps(self, data: bytes) -> Iterator[None]:
        """As L{feed}, in steps of a L{MAX_DECODED_CHUNK_BYTES} each."""
        if self.failed:
            return
        self.received += len(data)
        if self._stream is None:
            self._start += data
            if len(self._start) < 2:
                return
            data, self._start = self._start, b""
            self._stream = _Zlib(zlib.MAX_WBITS if _has_zlib_head(data) else -zlib.MAX_WBITS)
        try:
            yield from self._decode(data)
        except Exception:  # each codec has errors of its own
            self.failed = True

    def _decode(self, data: bytes) -> Iterator[None]:
        assert self._stream is not None
        while not self.failed:
            if self._stream.eof:
                if self._encoding == b"deflate" or not data.strip(b"\0"):
                    return  # padding
                self._stream = _begin(self._encoding)  # RFC 1952, RFC 8878: members may follow one another
                self.members += 1
            decoded = self._stream.decode(data)
            data = self._stream.left if self._stream.eof else b""
            self._out += len(decoded)
            if self._out > ALWAYS_ALLOWED_BYTES + MAX_EXPANSION_RATIO * self.received:
                self.failed = True
            elif decoded:
                self._take(decoded)
                yield
            if not decoded and not data:
                return


def decode_whole(encoding: bytes, body: bytes, most: int) -> bytes | None:
    """What all of a short body decodes to; C{None} where that is not all there, or more than C{most} bytes."""
    if encoding in _GZIP and (one := _decode_one_gzip(body)):
        return one if len(one) <= most else None
    if not can_decode(encoding):
        return None
    pieces: list[bytes] = []
    decoder = Decoder(encoding, pieces.append)
    for _ in decoder.decode_in_steps(body):
        if len(pieces) * MAX_DECODED_CHUNK_BYTES > most + MAX_DECODED_CHUNK_BYTES:
            return None
    decoded = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    return decoded if decoder.complete and len(decoded) <= most else None


def _decode_one_gzip(body: bytes) -> bytes:
    """What one member of gzip, with nothing behind it, decodes to by one call; C{b""} where it is anything else."""
    stream = zlib.decompressobj(zlib.MAX_WBITS + 16)
    try:
        decoded = stream.decompress(body, MAX_DECODED_CHUNK_BYTES)
    except zlib.error:
        return b""
    return decoded if stream.eof and not stream.unused_data else b""


def can_decode(encoding: bytes) -> bool:
    """Whether a content coding can be decoded here; lower case."""
    if encoding in _ALWAYS:
        return True
    return (encoding == b"zstd" and _zstd() is not None) or (encoding == b"br" and _brotli() is not None)


def encode(encoding: bytes, data: bytes) -> bytes:
    """C{data} in a content coding that is L{can_decode}."""
    if encoding == b"zstd":
        return bytes(_zstd().compress(data))
    if encoding == b"br":
        return bytes(_brotli().compress(data))
    made = zlib.compressobj(wbits=zlib.MAX_WBITS if encoding == b"deflate" else zlib.MAX_WBITS + 16)
    return made.compress(data) + made.flush()


class _Zlib:
    """C{gzip} and C{deflate}."""

    def __init__(self, bits: int) -> None:
        self._stream = zlib.decompressobj(bits)

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def left(self) -> bytes:
        return self._stream.unused_data

    def decode(self, data: bytes) -> bytes:
        return self._stream.decompress(self._stream.unconsumed_tail + data, MAX_DECODED_CHUNK_BYTES)


class _Zstd:
    """RFC 8878, by Python 3.14's C{compression.zstd} or its backport."""

    def __init__(self, module: Any) -> None:
        self._stream = module.ZstdDecompressor(options={module.DecompressionParameter.window_log_max: MAX_WINDOW_LOG})

    @property
    def eof(self) -> bool:
        return bool(self._stream.eof)

    @property
    def left(self) -> bytes:
        return bytes(self._stream.unused_data)

    def decode(self, data: bytes) -> bytes:
        if not data and self._stream.needs_input:
            return b""
        return bytes(self._stream.decompress(data, MAX_DECODED_CHUNK_BYTES))


class _Brotli:
    """RFC 7932, by the package C{brotli}, from 1.2 on, which can bound its output."""

    def __init__(self, module: Any) -> None:
        self._stream = module.Decompressor()

    @property
    def left(self) -> bytes:
        return b""

    @property
    def eof(self) -> bool:
        return bool(self._stream.is_finished())

    def decode(self, data: bytes) -> bytes:
        if not data and self._stream.can_accept_more_data():
            return b""
        return bytes(self._stream.process(data, output_buffer_limit=MAX_DECODED_CHUNK_BYTES))


def _begin(encoding: bytes) -> _Codec:
    if encoding == b"zstd":
        return _Zstd(_zstd())
    if encoding == b"br":
        return _Brotli(_brotli())
    return _Zlib(zlib.MAX_WBITS + 16)


def _zstd() -> Any:
    return _module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd", "ZstdDecompressor")


def _brotli() -> Any:
    found = _module("brotli", "Decompressor")
    return found if found is not None and hasattr(found.Decompressor, "can_accept_more_data") else None


def _module(name: str, needed: str) -> Any:
    try:
        found = import_module(name)
    except ImportError:
        return None
    return found if hasattr(found, needed) else None


def _has_zlib_head(data: bytes) -> bool:
    """Whether it begins as RFC 1950 says; some send RFC 1951 alone under the same name."""
    return data[0] & 0x0F == 8 and int.from_bytes(data[:2], "big") % 31 == 0
