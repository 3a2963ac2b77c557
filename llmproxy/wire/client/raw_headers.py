"""Header lines as they go over the wire, behind the face of Twisted's C{Headers}."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import AnyStr

from twisted.web.http_headers import Headers


def parsed(lines: Iterable[bytes]) -> Headers:
    """Ordinary headers out of lines such as C{b"Name: value"}."""
    headers = Headers()
    for line in lines:
        name, _, value = line.partition(b":")
        headers.addRawHeader(name, value.strip(b" \t"))
    return headers


class RawHeaders(Headers):
    """Header lines that pass untouched: read as any other headers, by whoever asks, but nobody can change them.

    @ivar lines: The lines, without line ends.
    """

    __slots__ = ("_parsed", "lines")

    def __init__(self, lines: list[bytes]) -> None:
        self.lines = lines
        self._parsed: dict[bytes, list[bytes]] | None = None

    @property
    def _rawHeaders(self) -> dict[bytes, list[bytes]]:  # type: ignore[override]
        """Twisted's own table, made when somebody looks."""
        if self._parsed is None:
            self._parsed = parsed(self.lines)._rawHeaders
        return self._parsed

    def copy(self) -> RawHeaders:
        return self

    def addRawHeader(self, name: str | bytes, value: str | bytes) -> None:
        """Add nothing."""

    def setRawHeaders(self, name: str | bytes, values: Sequence[str | bytes]) -> None:
        """Set nothing."""

    def removeHeader(self, name: AnyStr) -> None:
        """Remove nothing."""
