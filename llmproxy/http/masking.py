"""Hides a secret in bytes that pass, wherever it stands and however they are cut."""

from __future__ import annotations


class Mask:
    """Replaces every occurrence of C{secret} by as many asterisks, so that no length changes.

    Bytes at the end of a piece that may be the beginning of the secret are held until the next piece, or L{end}.
    """

    keeps_length = True

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._stars = b"*" * len(secret)
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """Give the next piece; get what may be shown so far."""
        data = (self._held + data).replace(self._secret, self._stars)
        held = self._beginning(data)
        self._held = data[len(data) - held :]
        return data[: len(data) - held]

    def end(self) -> bytes:
        """Get what was held back: the secret's beginning alone tells little, and the answer must stay whole."""
        held, self._held = self._held, b""
        return held

    def _beginning(self, data: bytes) -> int:
        for length in range(min(len(self._secret) - 1, len(data)), 0, -1):
            if data.endswith(self._secret[:length]):
                return length
        return 0


def masked_lines(lines: list[bytes], secret: bytes) -> list[bytes]:
    """The header lines, with the secret starred out where one holds it."""
    if secret not in b"\n".join(lines):
        return lines
    return [line.replace(secret, b"*" * len(secret)) for line in lines]
