"""Tells from its first bytes what a medium is, how large a picture is, how long a sound lasts."""

from __future__ import annotations

from typing import NamedTuple

MAX_HEAD_BYTES = 64 * 1024  # of base64 that are looked at; metadata may stand before a JPEG's size
# Bytes for a second of sound at the lowest rate in use; so it lasts no longer than its size divided by this.
LOWEST_RATES = {b"mp3": 4000, b"ogg": 2000, b"mp4": 3000, b"flac": 16_000, b"webm": 2000, b"": 2000}


class Medium(NamedTuple):
    """One picture, sound, film or document.

    @ivar kind: C{image}, C{audio}, C{video}, C{document}, or C{unknown}.
    @ivar size: Its bytes.
    @ivar width: Of a picture, in pixels; 0 where it is not known. C{height} likewise.
    @ivar seconds: Of a sound or film: how long it lasts at most.
    """

    kind: str
    size: int
    width: int = 0
    height: int = 0
    seconds: float = 0.0


def medium(type_: bytes, head: bytes, size: int) -> Medium:
    """What it is.

    @param type_: What a data URL says that it is; C{b""} where nothing is said.
    @param head: Its first bytes.
    """
    pixels = _pixels(head)
    if pixels is not None:
        return Medium("image", size, *pixels)
    main = type_.partition(b"/")[0].lower()
    if main == b"image":
        return Medium("image", size)
    if head.startswith(b"%PDF") or b"pdf" in type_:
        return Medium("document", size)
    if main == b"video" or head[4:12] in (b"ftypisom", b"ftypmp42", b"ftypqt  "):
        return Medium("video", size, seconds=size / 12_500)  # 100 kbit/s
    container = _sound(head)
    if container == b"wav":
        return Medium("audio", size, seconds=size / max(int.from_bytes(head[28:32], "little"), 2000))
    if container or main == b"audio":
        return Medium("audio", size, seconds=size / LOWEST_RATES[container])
    return Medium("unknown", size)


def _sound(head: bytes) -> bytes:
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return b"wav"
    if head[:3] == b"ID3" or (head[:1] == b"\xff" and head[1:2] > b"\xe0"):
        return b"mp3"
    for start, name in ((b"OggS", b"ogg"), (b"fLaC", b"flac"), (b"\x1a\x45\xdf\xa3", b"webm")):
        if head.startswith(start):
            return name
    return b"mp4" if head[4:11] == b"ftypM4A" else b""


def _pixels(head: bytes) -> tuple[int, int] | None:
    """Width and height of a PNG, GIF, WebP or JPEG; 0 where they are not in the head; C{None} for anything else."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return _two(head[16:24], "big") if head[12:16] == b"IHDR" else (0, 0)
    if head.startswith((b"GIF87a", b"GIF89a")):
        return _two(head[6:10], "little")
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return _webp(head)
    return _jpeg(head) if head.startswith(b"\xff\xd8\xff") else None


def _two(data: bytes, order: str) -> tuple[int, int]:
    half = len(data) // 2
    return int.from_bytes(data[:half], order), int.from_bytes(data[half:], order)  # type: ignore[arg-type]


def _webp(head: bytes) -> tuple[int, int]:
    """The three kinds of WebP (RFC 9649, section 2)."""
    if head[12:16] == b"VP8X":
        return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    if head[12:16] == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if head[12:16] == b"VP8 ":
        width, height = _two(head[26:30], "little")
        return width & 0x3FFF, height & 0x3FFF
    return 0, 0


def _jpeg(head: bytes) -> tuple[int, int]:
    """The frame header (ITU T.81, B.2.2) behind whatever precedes it."""
    at = 2
    while at + 9 <= len(head) and head[at] == 0xFF:
        marker = head[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = _two(head[at + 5 : at + 9], "big")
            return width, height
        at += 2 + max(int.from_bytes(head[at + 2 : at + 4], "big"), 2)
    return 0, 0
