"""Header lines as they go over the wire, behind the face of Twisted's C{Headers}."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, AnyStr

from twisted.web.http_headers import Headers


def parsed(lines: Iterable[bytes]) -> Headers:
    """Ordinary headers out of lines such as C{b"Name: value"}."""
    headers = Headers()
    for line in lines:
        name, _, value = line.partition(b":")
        headers.addRawHeader(name, value.strip(b" \t"))
    return headers


class RawHeaders(Headers):
    """Header lines that pass through treq untouched.

    They are read as any other headers, by whoever asks, but cannot be changed; so what treq would add to a request
    (C{Accept-Encoding}, C{Cookie}) or to an answer (an empty C{Content-Encoding}) is not added. Two answers are meant
    for treq alone: there is always a C{Cookie} (its jar is not to be asked), never a C{Content-Encoding} (nothing is
    to be decoded). Who wants to know these reads C{lines}.

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

    def hasHeader(self, name: AnyStr) -> bool:
        return name == b"Cookie" or super().hasHeader(name)

    def getRawHeaders(self, name: Any, default: Any = None) -> Any:
        return default if name == b"Content-Encoding" else super().getRawHeaders(name, default)

    def addRawHeader(self, name: str | bytes, value: str | bytes) -> None:
        """Add nothing."""

    def setRawHeaders(self, name: str | bytes, values: Sequence[str | bytes]) -> None:
        """Set nothing."""

    def removeHeader(self, name: AnyStr) -> None:
        """Remove nothing."""
