"""Which Unicode encoding a JSON text has that is not plain UTF-8 (RFC 8259, section 8.1, asks for that)."""

from __future__ import annotations

import codecs

_ZEROS = b"0" + b"x" * 255
_ENCODINGS = {b"000x": "utf-32-be", b"x000": "utf-32-le", b"0x0x": "utf-16-be", b"x0x0": "utf-16-le"}


def json_encoding(data: bytes) -> str:
    """The encoding of a JSON text that is not plain UTF-8, as L{json.detect_encoding} finds it; C{""} where it is."""
    if data.startswith(codecs.BOM_UTF8):
        return "utf-8-sig"
    if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    return _ENCODINGS.get(data[:4].translate(_ZEROS), "")
