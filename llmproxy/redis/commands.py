"""Commands as the server reads them."""

from __future__ import annotations

from collections.abc import Sequence

Argument = bytes | str | int | float


def encode(command: Sequence[Argument]) -> bytes:
    """An array of bulk strings (RESP2). Text goes as UTF-8, whatever it holds."""
    out = [b"*%d\r\n" % len(command)]
    for part in command:
        if isinstance(part, str):
            part = part.encode("utf-8", "surrogatepass")
        elif not isinstance(part, bytes):
            part = repr(part).encode("ascii")
        out += (b"$%d\r\n" % len(part), part, b"\r\n")
    return b"".join(out)
