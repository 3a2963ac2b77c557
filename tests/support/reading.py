"""Reads a request's body as the proxy does, for tests of what is done with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from llmproxy.http.request_reader import RequestContent, RequestReader


def everything(_: str) -> bool:
    """All members are wanted."""
    return True


def read(
    body: bytes, lines: Iterable[bytes] = (), piece: int = 0, wanted: Callable[[str], bool] = everything
) -> RequestContent:
    """What a body says that comes in pieces of so many bytes; 0: at once."""
    reader = RequestReader(lines, wanted)
    for at in range(0, len(body), piece or len(body) or 1):
        reader.feed(body[at : at + (piece or len(body))])
        while reader.pending:
            reader.work()
    reader.end()
    return reader.content()
