"""What all connections of a server share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.web import server

from llmproxy.wire.buffers import Buffers
from llmproxy.wire.deadline import Deadlines
from llmproxy.wire.descriptors import Descriptors
from llmproxy.wire.server.connection_registry import ConnectionRegistry
from llmproxy.wire.server.direct import DirectRequests
from llmproxy.wire.server.request_decoder import KnownHeads
from llmproxy.wire.server.response_writer import WriterSettings
from llmproxy.wire.server.server_limits import ServerLimits

OnRefused = Callable[[int, str, str, str], object]
"""Called with status, code, address and request id of what is rejected before a resource sees it."""


@dataclass(frozen=True, slots=True)
class ConnectionContext:
    """Made once by a L{Site<llmproxy.wire.server.site.Site>}, and given to each of its channels.

    @ivar site: Finds the resource for a request.
    @ivar deadlines: Of all of them, under one timer.
    @ivar writing: How responses are written.
    @ivar fresh_id: Makes the request id of what is rejected before a resource sees it.
    @ivar peer_closed: See L{socket_state.peer_closed<llmproxy.wire.socket_state.peer_closed>}.
    @ivar known_heads: Heads that need not be parsed again.
    @ivar direct: Serves requests that need no C{Request}.
    @ivar descriptors: Notes which descriptor each client has got.
    @ivar buffers: Counts what is held of requests.
    @ivar allow: The field line that names the methods that are served.
    """

    site: server.Site
    reactor: Any
    deadlines: Deadlines
    limits: ServerLimits
    connections: ConnectionRegistry
    writing: WriterSettings
    on_refused: OnRefused
    fresh_id: Callable[[], str]
    peer_closed: Callable[..., bool]
    known_heads: KnownHeads | None
    direct: DirectRequests | None
    descriptors: Descriptors | None
    buffers: Buffers | None
    allow: bytes
