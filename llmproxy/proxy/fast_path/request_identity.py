"""Whose a request is, and how it is called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from llmproxy.http import fields
from llmproxy.http.field_lines import FieldLines
from llmproxy.wire.server.direct import DirectChannel


class RequestIdentity(Protocol):
    """Tells whose a request is, and names it.

    @ivar believes_proxies: Whether C{client} is anybody else than who has connected.
    @ivar now: Seconds since the epoch.
    @ivar fresh_id: Makes an id, of lower-case hexadecimal digits and hyphens.
    """

    believes_proxies: bool
    now: Callable[[], float]
    fresh_id: Callable[[], str]

    def client(self, remote: str, lines: FieldLines) -> str: ...


class NamedRequest(Protocol):
    """Has lines, and has come on a connection."""

    @property
    def channel(self) -> DirectChannel: ...
    @property
    def lines(self) -> FieldLines: ...


def names_of(request: NamedRequest, identity: RequestIdentity) -> tuple[str, str]:
    """What a request is called, and whose it is."""
    lines = request.lines
    return request_id(lines, identity), identity.client(request.channel.remote, lines)


def request_id(lines: FieldLines, identity: RequestIdentity) -> str:
    """The id that a request with these lines has itself, or a fresh one."""
    own = fields.request_id(lines)
    return identity.fresh_id() if own is None else own.decode("ascii")
