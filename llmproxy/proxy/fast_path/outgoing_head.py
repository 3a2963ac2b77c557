"""The heads of direct requests, as they go to the provider."""

from __future__ import annotations

from collections.abc import Sequence


class OutgoingHead:
    """The head that is sent to the provider.

    @ivar start: All of it up to the body's length, where that is the same for each request; else C{b""}.
    """

    __slots__ = ("_filled", "_names_client", "_parts", "start")

    def __init__(
        self, lines: Sequence[bytes], filled: Sequence[tuple[int, int]], *, names_client: bool = False
    ) -> None:
        """
        @param lines: The request line and the field lines, without the one that frames the body.
        @param filled: Pairs of an index of these, and that of the hole whose line stands there.
        @param names_client: Whether the provider is told the client's address, behind these.
        """
        self._names_client = names_client
        hole_at, parts, kept = dict(filled), [], []
        self._filled: list[tuple[int, int]] = []
        for index, line in enumerate([*lines, b"X-Forwarded-For: " if names_client else b"Content-Length: "]):
            hole = hole_at.get(index)
            if hole is None:
                kept.append(line)
                continue
            if kept:
                parts.append(b"\r\n".join(kept))
                kept = []
            self._filled.append((len(parts), hole))
            parts.append(b"")
        parts.append(b"\r\n".join(kept))
        self._parts = parts
        self.start = b"" if filled or names_client else parts[0]

    def render(self, holes: Sequence[bytes], length: int, client: str) -> bytes:
        """All of it, for a body of so many bytes.

        @param holes: The client's lines that stand in its holes.
        @param client: Its address.
        """
        parts = self._parts.copy()
        for index, hole in self._filled:
            parts[index] = holes[hole]
        if self._names_client:
            parts[-1] += b"%b\r\nContent-Length: " % client.encode("ascii", "replace")
        return b"%b%d\r\n\r\n" % (b"\r\n".join(parts), length)
